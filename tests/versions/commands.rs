//! Versions by the command line.

use super::*;
use tidemill_tests::commands::{tidemill, tidemill_of};

/// Exit code, standard output and standard error of a command that asks a host.
fn command(scene: &Scene, host: &Host, arguments: &[&str]) -> (i32, String, String) {
    let (code, told, error) = tidemill_of(host, &scene.folder, arguments);
    (code.unwrap(), told, error)
}

fn shown(content: &[u8]) -> String {
    version(content)["sha256:".len()..][..12].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_sent_by_its_file_and_had_back_and_the_verdict_is_shown() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    std::fs::write(scene.folder.path("x.wasm"), &second).unwrap();
    let (from, to) = (shown(&first), shown(&second));
    blocking(|| {
        let (code, told, _) = command(&scene, &host, &["swap", "x.wasm"]);
        let pause = verdicts(&host)[0]["uses"][0]["swap_us"].to_string() + " us";
        let expected = format!(
            "plugin x: swapped, {to} in the place of {from}\n\
             PIPELINE  PLACE  OUTCOME  STATE    PAUSE\n\
             p         x      swapped  carried  {pause}\n"
        );
        assert_eq!((code, told), (0, expected));
        let (code, told, _) = command(&scene, &host, &["rollback", "x", "--json"]);
        let verdict: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((code, &verdict), (0, &verdicts(&host)[0]), "the data as the API has it");
        assert_eq!(verdict["asked_by"], "rollback");
        let (code, told, _) = command(&scene, &host, &["swap", "x.wasm", "--state", "fresh", "--json"]);
        let verdict: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((code, &verdict["uses"][0]["state"]), (0, &json!("fresh")));
        let (code, told, _) = command(&scene, &host, &["rollback", "x", "--to", &from]);
        assert_eq!(
            (code, told.lines().next()),
            (0, Some(&*format!("plugin x: swapped, {from} in the place of {to}")))
        );

        let (code, told, _) = command(&scene, &host, &["plugins"]);
        let expected = format!(
            "PLUGIN  VERSION       USED BY        EARLIER\n\
             x       {from}  p/x (running)  {to}\n"
        );
        assert_eq!((code, told), (0, expected));
        let (code, told, _) = command(&scene, &host, &["plugins", "--json"]);
        let listed: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((code, &listed), (0, &host.json("GET", "/api/v1/plugins", &Value::Null).1));
        let (code, told, _) = command(&scene, &host, &["plugins", "--swaps", "--json"]);
        let swaps: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((code, swaps["swaps"].as_array().unwrap()), (0, &verdicts(&host)));
        let (code, told, _) = command(&scene, &host, &["plugins", "--swaps"]);
        let words: Vec<_> =
            told.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(code, 0);
        assert_eq!(words[1..], ["x", &from, &to, "rollback", "swapped", "p/x swapped (carried)"], "{told}");
    });
    scene.passes("b", "v1 1 b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_run_ends_a_command_with_1_and_says_why() {
    let mut scene = Scene::new().await;
    let filter = shipped("filter");
    scene.folder.put("x", &filter);
    let host = scene.run(r#"config = { where = [{ field = "/n", op = "exists" }] }"#);
    scene.passes("{\"n\":1}", "{\"n\":1}").await;
    std::fs::write(scene.folder.path("other.wasm"), shipped("notional")).unwrap();
    std::fs::write(scene.folder.path("garbage.wasm"), "garbage").unwrap();
    blocking(|| {
        let (code, told, _) = command(&scene, &host, &["swap", "other.wasm", "--name", "x"]);
        let (from, to) = (shown(&filter), shown(&shipped("notional")));
        assert!(
            told.starts_with(&format!("plugin x: rejected, {to} not in the place of {from}\n")),
            "{told}"
        );
        assert!(told.ends_with("unknown key `where`: known here: `price`, `quantity`, `above`\n"), "{told}");
        assert_eq!(code, 1);
        let (code, told, error) = command(&scene, &host, &["swap", "garbage.wasm", "--name", "x"]);
        assert_eq!((code, told.as_str()), (1, ""));
        assert!(
            error.starts_with("error: failed to load plugin x: the file is not WebAssembly\nhint: "),
            "{error}"
        );
        let (code, _, error) = command(&scene, &host, &["swap", "absent.wasm"]);
        assert_eq!(code, 1);
        assert!(error.starts_with("error: failed to read absent.wasm: "), "{error}");
        let (code, _, error) = command(&scene, &host, &["rollback", "x"]);
        assert_eq!(code, 1);
        assert!(
            error.starts_with("error: no other version of plugin \"x\" that ran before is kept\nhint: "),
            "{error}"
        );
        assert!(host.stop().status.success());
    });
}

#[test]
fn without_a_host_the_plugins_of_the_folder_are_listed_unless_a_host_is_named() {
    let folder = Folder::default();
    folder.put("x", &content("counter-v1"));
    // Nobody listens on the port 1 of this machine.
    let (code, _, error) = tidemill(&folder, &["plugins", "--admin", "127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("error: no host answers at 127.0.0.1:1: "), "{error}");
    std::fs::write(folder.path("tidemill.toml"), "").unwrap();
    let (code, told, _) = tidemill(&folder, &["plugins", "-c", "tidemill.toml"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("x") && told.contains("plugins/x.wasm"), "{told}");
}
