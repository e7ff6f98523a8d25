//! A manifest of the Rust SDK as it stands alone: what it inherits of the workspace is written out, so that it builds
//! from the registry and the folder beside it.

use toml::{Table, Value};

/// The manifest of the workspace that the SDK is written in.
const WORKSPACE: &str = include_str!("../sdk/workspace.toml");

/// Writes a manifest out. The crates of the workspace are folders beside each other.
///
/// # Panics
/// If one of the two is no manifest: both are part of the program.
pub(crate) fn written_out(manifest: &str) -> String {
    let workspace: Table = WORKSPACE.parse().expect("the manifest of the workspace is TOML");
    let workspace = workspace["workspace"].as_table().expect("it is that of a workspace");
    let mut manifest: Table = manifest.parse().expect("a manifest is TOML");
    // Rules of this house, and what its own tests need.
    for table in ["lints", "dev-dependencies"] {
        manifest.remove(table);
    }
    if let Some(Value::Table(package)) = manifest.get_mut("package") {
        package.remove("exclude");
        inherit(package, &workspace["package"], |_, shared, _| shared.clone());
    }
    if let Some(Value::Table(dependencies)) = manifest.get_mut("dependencies") {
        inherit(dependencies, &workspace["dependencies"], dependency);
    }
    toml::to_string(&manifest).expect("a table is TOML")
}

/// Puts what the workspace says in the place of each entry that leaves it to the workspace.
fn inherit(table: &mut Table, workspace: &Value, merged: impl Fn(&str, &Value, &Table) -> Value) {
    for (name, value) in table.iter_mut() {
        if let Value::Table(own) = value
            && own.get("workspace") == Some(&Value::Boolean(true))
        {
            let shared = workspace.get(name).expect("what is inherited is there");
            *value = merged(name, shared, own);
        }
    }
}

/// A dependency of the workspace, with the features that a crate adds.
fn dependency(_: &str, shared: &Value, own: &Table) -> Value {
    let mut merged = match shared {
        Value::Table(shared) => shared.clone(),
        version => Table::from_iter([("version".to_owned(), version.clone())]),
    };
    if let Some(path) = merged.get("path").and_then(Value::as_str) {
        let beside = format!("../{}", path.rsplit('/').next().unwrap_or(path));
        merged.insert("path".to_owned(), beside.into());
    }
    if let Some(Value::Array(features)) = own.get("features") {
        let all = merged.entry("features").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(all) = all {
            all.extend(features.iter().cloned());
        }
    }
    Value::Table(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_a_workspace_and_crates_beside_are_found_there() {
        for manifest in [include_str!("../sdk/rust/manifest.toml"), include_str!("../sdk/json/manifest.toml")]
        {
            let alone = written_out(manifest);
            assert!(!alone.contains("workspace") && !alone.contains("[lints"), "{alone}");
            assert!(alone.contains("edition = \"2024\""), "{alone}");
        }
        let sdk: Table = written_out(include_str!("../sdk/rust/manifest.toml")).parse().expect("it is TOML");
        let dependency = |name: &str, key: &str| sdk["dependencies"][name].get(key).cloned();
        assert_eq!(dependency("tidemill-json", "path"), Some("../json".into()));
        assert_eq!(dependency("regex-lite", "version"), Some("0.1".into()));
        let features = dependency("wit-bindgen", "features").expect("it has some");
        assert_eq!(features, Value::from(vec!["macros", "realloc", "std"]));
    }
}
