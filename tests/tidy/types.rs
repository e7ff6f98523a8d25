//! Types of one name: whoever reads a name without its path must know which type is meant.

use super::circles::Sources;
use super::tokens::Token;
use std::collections::BTreeMap;

/// Each name that several types of `host/src` have, with where they are.
pub(crate) fn namesakes(sources: &Sources<'_>) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (file, tokens) in sources {
        for token in declared(tokens) {
            places.entry(token.text).or_default().push(format!("{}.rs:{}", file.join("/"), token.line));
        }
    }
    places.retain(|_, places| places.len() > 1);
    let said = places.iter().map(|(name, places)| {
        let places = places.join(", ");
        format!("two types are called `{name}`: {places}\n    help: say in the name of one what it is of")
    });
    said.collect()
}

/// The names of the structs, enums, traits and aliases that a file declares. The types of traits and of their
/// implementations are none of them.
fn declared<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut names = Vec::new();
    // Of each block that is open, whether it is one of a trait or of an implementation.
    let mut blocks: Vec<bool> = Vec::new();
    let mut is_of_trait = false;
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |at| tokens[at].text);
        match token.text {
            "{" => blocks.push(std::mem::take(&mut is_of_trait)),
            "}" => drop(blocks.pop()),
            ";" => is_of_trait = false,
            "impl" if matches!(before, "" | ";" | "}" | "]" | "{" | "unsafe") => is_of_trait = true,
            // In a macro, what is declared has no name yet.
            "struct" | "enum" | "trait" | "type" if before != "$" && before != "#" => {
                is_of_trait |= token.text == "trait";
                let is_alias = token.text == "type";
                let name = tokens.get(at + 1).filter(|name| name.text.starts_with(char::is_uppercase));
                names.extend(name.filter(|_| !(is_alias && blocks.last() == Some(&true))));
            }
            _ => {}
        }
    }
    names
}
