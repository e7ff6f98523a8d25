//! Just enough of Rust's lexer to read paths: words and punctuation with their lines.
//!
//! Comments and literals are left out, so that what they speak of is not taken for code, and so is
//! every item under `#[cfg(test)]`.

/// A word or a punctuation mark of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// A word, `::`, or one mark.
    pub(crate) text: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// Whether a token is a word and no mark.
pub(crate) fn is_word(token: Token<'_>) -> bool {
    token.text.starts_with(is_part_of_word)
}

/// The tokens of a file, without those of its tests.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    without_tests(&lex(source))
}

fn lex(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = if first.is_whitespace() {
            (first.len_utf8(), false)
        } else if let Some(length) = comment(rest).or_else(|| literal(rest)) {
            (length, false)
        } else if is_part_of_word(first) {
            (rest.find(|c| !is_part_of_word(c)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), true)
        };
        let (text, behind) = rest.split_at(length);
        if is_token {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    tokens
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment at the start; block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut depth = 0;
    let mut at = 0;
    loop {
        let (step, change) = match rest.get(at..at + 2) {
            Some("/*") => (2, 1),
            Some("*/") if depth > 0 => (2, -1),
            _ if depth == 0 => return None,
            _ => (rest[at..].chars().next().map_or(1, char::len_utf8), 0),
        };
        at += step;
        depth += change;
        if depth == 0 || at >= rest.len() {
            return Some(at.min(rest.len()));
        }
    }
}

/// The length of the string or character literal at the start. A lifetime is none.
fn literal(rest: &str) -> Option<usize> {
    let start = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = &rest[..rest.len() - start.len()];
    if prefix.len() > 2 {
        return None;
    }
    if prefix.ends_with('r') {
        let hashes = start.len() - start.trim_start_matches('#').len();
        let body = start[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", &start[..hashes]);
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix.len() + hashes + 1 + length);
    }
    let quote = start.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' && !start[1..].starts_with('\\') && start[1..].chars().nth(1) != Some('\'') {
        return None;
    }
    let mut escaped = false;
    for (at, c) in start.char_indices().skip(1) {
        if c == quote && !escaped {
            return Some(prefix.len() + at + 1);
        }
        escaped = c == '\\' && !escaped;
    }
    Some(rest.len())
}

/// Leaves out each item that stands under `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const UNDER: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let under = tokens[at..].iter().map(|token| token.text).take(UNDER.len()).eq(UNDER);
        if under {
            at += UNDER.len();
            at += item(&tokens[at..]);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// How many tokens the item at the start has: up to its `;` or the end of its body.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}
