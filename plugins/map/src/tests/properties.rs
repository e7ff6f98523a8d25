//! The plugin beside `serde_json`, and its two ways beside each other.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidemill_plugin::json::Kind;

/// The members of a pointer, made of an object.
fn parent<'t>(tree: &'t mut Tree, pointer: &str) -> Option<(&'t mut serde_json::Map<String, Tree>, String)> {
    let (within, name) = pointer.rsplit_once('/')?;
    Some((tree.pointer_mut(within)?.as_object_mut()?, name.to_owned()))
}

fn set(tree: &mut Tree, pointer: &str, value: Tree) -> Result<(), ()> {
    let (members, name) = parent(tree, pointer).ok_or(())?;
    members.insert(name, value);
    Ok(())
}

fn pick(tree: &Tree, at: &str, pointers: &[String]) -> Option<Tree> {
    if pointers.iter().any(|pointer| pointer == at) {
        return Some(tree.clone());
    }
    match tree {
        Tree::Object(members) => {
            let kept = members.iter().filter_map(|(name, value)| {
                Some((name.clone(), pick(value, &format!("{at}/{name}"), pointers)?))
            });
            Some(kept.collect::<serde_json::Map<_, _>>()).filter(|kept| !kept.is_empty()).map(Tree::Object)
        }
        Tree::Array(elements) => {
            let kept = elements.iter().enumerate();
            let kept = kept.filter_map(|(number, value)| pick(value, &format!("{at}/{number}"), pointers));
            Some(kept.collect::<Vec<_>>()).filter(|kept| !kept.is_empty()).map(Tree::Array)
        }
        _ => None,
    }
}

fn omit(tree: Tree) -> Tree {
    let is_something = |value: &Tree| ![json!(null), json!(""), json!([]), json!({})].contains(value);
    match tree {
        Tree::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, omit(value)));
            members.filter(|(_, value)| is_something(value)).collect()
        }
        Tree::Array(elements) => elements.into_iter().map(omit).filter(is_something).collect(),
        other => other,
    }
}

/// What is to become of a message.
fn model(config: &Tree, mut tree: Tree) -> Result<Tree, ()> {
    let table = |key: &str| config[key].as_object().cloned().unwrap_or_default();
    let list = |key: &str| -> Vec<String> { serde_json::from_value(config[key].clone()).unwrap_or_default() };
    if let Some(pointer) = config["unwrap"].as_str() {
        tree = tree.pointer(pointer).ok_or(())?.clone();
    }
    // There is one name, and one expression with it.
    if let Some(pointer) = config["let"]["x"].as_str() {
        let number = match tree.pointer(pointer) {
            None => None,
            Some(Tree::Number(number)) => number.as_f64(),
            Some(Tree::String(text)) => Some(text.parse().map_err(drop)?),
            Some(_) => return Err(()),
        };
        for (pointer, _) in table("compute") {
            if let Some(number) = number {
                set(&mut tree, &pointer, json!(number * 2.0 + 1.0))?;
            }
        }
    }
    for (pointer, value) in table("set") {
        set(&mut tree, &pointer, value)?;
    }
    let taken: Vec<_> = table("rename")
        .into_iter()
        .map(|(from, to)| {
            let taken = parent(&mut tree, &from).and_then(|(members, name)| members.remove(&name));
            (to.as_str().unwrap().to_owned(), taken)
        })
        .collect();
    for (to, taken) in taken {
        taken.map_or(Ok(()), |taken| set(&mut tree, &to, taken))?;
    }
    let picked = list("pick");
    if !picked.is_empty() {
        let nothing = match &tree {
            Tree::Array(_) => json!([]),
            Tree::Object(_) => json!({}),
            _ => return Err(()),
        };
        tree = pick(&tree, "", &picked).unwrap_or(nothing);
    }
    for pointer in list("drop") {
        let (within, name) = pointer.rsplit_once('/').unwrap();
        let within = tree.pointer(within).and_then(Tree::as_array);
        if within
            .zip(name.parse().ok())
            .is_some_and(|(elements, number)| elements.get::<usize>(number).is_some())
        {
            return Err(());
        }
        parent(&mut tree, &pointer).map(|(members, name)| members.remove(&name));
    }
    Ok(if config["omit_empty"] == true { omit(tree) } else { tree })
}

fn message() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!("")),
        Just(json!("2.5")),
        Just(json!("text")),
        (0..9i64).prop_map(|number| json!(number)),
        Just(json!(true)),
    ];
    let inner = leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Tree::Array),
            prop::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    });
    prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|members| members.into_iter().collect())
}

fn pointer() -> impl Strategy<Value = String> {
    prop_oneof![3 => "/[a-c]", 2 => "/[a-c]/[a-c]", 1 => "/[a-c]/[01]", 1 => "/[a-c]/[01]/[a-c]"]
}

fn config() -> impl Strategy<Value = Tree> {
    let pairs = prop::collection::btree_map(pointer(), pointer(), 0..3).prop_map(|mut pairs| {
        pairs.retain(|from, to| {
            from == to || !from.starts_with(to.as_str()) && !to.starts_with(from.as_str())
        });
        json!(pairs)
    });
    let list = || prop::collection::vec(pointer(), 0..3);
    (
        (prop::option::weighted(0.2, pointer()), pointer(), prop::collection::vec(pointer(), 0..2)),
        prop::collection::btree_map(pointer(), message(), 0..2),
        (
            prop::option::weighted(0.3, pairs),
            prop::option::weighted(0.3, list()),
            list(),
            prop::bool::weighted(0.3),
        ),
    )
        .prop_map(|((unwrap, x, computed), set, (rename, pick, drop, omit_empty))| {
            let compute: BTreeMap<_, _> =
                computed.into_iter().map(|pointer| (pointer, "x * 2 + 1")).collect();
            let mut config = json!({
                "let": { "x": x }, "compute": compute, "set": set, "drop": drop, "omit_empty": omit_empty,
            });
            for (key, value) in [
                ("unwrap", unwrap.map(Tree::from)),
                ("rename", rename),
                ("pick", pick.map(|list| json!(list))),
            ] {
                if let Some(value) = value {
                    config[key] = value;
                }
            }
            if config["compute"].as_object().unwrap().is_empty() {
                config["let"] = json!({});
            }
            config
        })
        .prop_filter("one part undoes another", |config| Harness::<Map>::try_new(&config.to_string()).is_ok())
}

/// JSON whose names are few and often stand several times in one object.
fn ambiguous() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![Just("1".to_owned()), Just("\"x\"".to_owned()), Just("[]".to_owned())];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(","))),
            3 => prop::collection::vec(("[a-c]", inner), 0..5).prop_map(|members| {
                let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// What a reader has of a message that takes the first of several members of one name, or the last.
fn as_read(value: Value<'_>, takes_last: bool) -> Tree {
    match value.kind() {
        Kind::Object => {
            let mut tree = serde_json::Map::new();
            for (name, value) in value.members() {
                let name = name.string().unwrap().into_owned();
                if takes_last || !tree.contains_key(&name) {
                    tree.insert(name, as_read(value, takes_last));
                }
            }
            Tree::Object(tree)
        }
        Kind::Array => value.elements().map(|element| as_read(element, takes_last)).collect(),
        _ => serde_json::from_slice(value.raw()).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn messages_become_what_a_tree_of_serde_becomes(config in config(), messages in prop::collection::vec(message(), 1..4)) {
        let mut plugin = map(&config);
        for message in messages {
            let processed = plugin.process([message.to_string()]);
            let got = processed.texts().first().map(|text| serde_json::from_str::<Tree>(text).unwrap());
            prop_assert_eq!(got, model(&config, message.clone()).ok(), "{} of {}", config, message);
        }
    }

    /// The host and the plugin itself make the same of a message, for whatever reader.
    #[test]
    fn both_ways_make_the_same_of_names_that_stand_several_times(
        message in ambiguous(),
        set in prop::collection::btree_map(pointer(), 0..9i64, 0..3),
        drop in prop::collection::vec(pointer(), 0..3),
    ) {
        let config = json!({ "set": set, "drop": drop });
        let mut anew = config.clone();
        anew["rename"] = json!({ "/none": "/nothing" });
        let made = Harness::<Map>::try_new(&config.to_string()).ok().zip(Harness::try_new(&anew.to_string()).ok());
        prop_assume!(made.is_some());
        let (mut edits, mut anew): (Harness<Map>, Harness<Map>) = made.unwrap();
        let (edited, written) = (edits.process([message.as_str()]), anew.process([message.as_str()]));
        let read = |processed: &Processed, takes_last| {
            processed.texts().first().map(|text| as_read(Value::of_checked(text.trim().as_bytes()), takes_last))
        };
        for takes_last in [true, false] {
            prop_assert_eq!(read(&edited, takes_last), read(&written, takes_last), "{} of {}", config, message);
        }
    }
}
