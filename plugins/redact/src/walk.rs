//! The way through a message, which the host has checked to be JSON.

use crate::patterns::Patterns;
use std::borrow::Cow;
use tidemill_plugin::json::{Pointers, Value};

/// Appends a message without what is to be redacted to `written`: what `fields` lead to, and what patterns find. If
/// there is nothing, says false, and what is written does not matter.
pub(crate) fn redact(message: &[u8], fields: &Pointers, patterns: &Patterns, written: &mut Vec<u8>) -> bool {
    let mut walk = Walk { message, at: 0, patterns, written, copied: 0 };
    walk.value(Some(fields));
    let is_redacted = walk.copied > 0;
    walk.written.extend_from_slice(&message[walk.copied..]);
    is_redacted
}

/// How far the way has gone.
struct Walk<'a> {
    message: &'a [u8],
    at: usize,
    patterns: &'a Patterns,
    written: &'a mut Vec<u8>,
    /// What stands before this was copied or replaced.
    copied: usize,
}

impl<'a> Walk<'a> {
    /// Goes through a value, the blanks before it included. Calls itself as deep as messages may be nested.
    fn value(&mut self, place: Option<&Pointers>) {
        self.blanks();
        if place.is_some_and(Pointers::is_meant) {
            let start = self.at;
            self.skip();
            let patterns = self.patterns;
            return self.replace(start, patterns.replace_json());
        }
        // Below here are neither fields nor strings to look at.
        if self.patterns.is_empty() && place.is_none_or(|place| !place.is_followed()) {
            return self.skip();
        }
        match self.message[self.at] {
            b'{' => self.members(place),
            b'[' => self.elements(place),
            b'"' => self.text(),
            _ => self.skip(),
        }
    }

    fn members(&mut self, place: Option<&Pointers>) {
        let place = place.filter(|place| place.is_followed());
        self.at += 1;
        while self.next_is_not(b'}') {
            let name = self.string();
            // Behind the colon.
            self.blanks();
            self.at += 1;
            self.value(place.and_then(|place| place.inside(&Value::of_checked(name).string()?)));
        }
    }

    fn elements(&mut self, place: Option<&Pointers>) {
        let place = place.filter(|place| place.is_followed());
        self.at += 1;
        let mut index = 0;
        while self.next_is_not(b']') {
            self.value(place.and_then(|place| place.inside(&index.to_string())));
            index += 1;
        }
    }

    /// Goes to the next member or element, or behind the bracket that closes them.
    fn next_is_not(&mut self, close: u8) -> bool {
        self.blanks();
        if self.message[self.at] == b',' {
            self.at += 1;
            self.blanks();
        }
        let is_next = self.message[self.at] != close;
        self.at += usize::from(!is_next);
        is_next
    }

    /// Looks at a string. One that says half of a character is no text that could be looked at, and is replaced.
    fn text(&mut self) {
        let start = self.at;
        let string = self.string();
        let redacted = match Value::of_checked(string).string() {
            Some(text) => self
                .patterns
                .redact(&text)
                .map(|text| Cow::Owned(serde_json::to_vec(&text).expect("every text is a JSON string"))),
            None => Some(Cow::Borrowed(self.patterns.replace_json())),
        };
        if let Some(json) = redacted {
            self.replace(start, &json);
        }
    }

    /// Writes something in the place of what stands from there to here.
    fn replace(&mut self, start: usize, json: &[u8]) {
        self.written.extend_from_slice(&self.message[self.copied..start]);
        self.written.extend_from_slice(json);
        self.copied = self.at;
    }

    fn blanks(&mut self) {
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.at += self.message[self.at..].iter().take_while(is_blank).count();
    }

    /// Goes over a string. Gives it with its quotes.
    fn string(&mut self) -> &'a [u8] {
        let start = self.at;
        self.at += 1;
        while self.message[self.at] != b'"' {
            self.at += if self.message[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        &self.message[start..self.at]
    }

    /// Goes over a value of any kind.
    fn skip(&mut self) {
        let mut depth = 0;
        loop {
            match self.message.get(self.at) {
                Some(b'"') => drop(self.string()),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':' | b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                _ => self.token(),
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes over a number or a literal.
    fn token(&mut self) {
        let is_token = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        self.at += self.message[self.at..].iter().take_while(is_token).count();
    }
}
