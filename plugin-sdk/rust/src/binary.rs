//! Values as bytes, small and exact: a form for the [snapshots](crate::Plugin::snapshot) of plugins that know much.
//!
//! Unlike JSON it has no names: what is written must be read as the same type. So a type that has changed is to have a
//! number of its own, and the plugin refuses the others, as [`decode`] does.

use crate::{Error, Result};
use postcard::ser_flavors::Size;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// A value as bytes, which begin with the number of its form. They take no more memory than there are of them: they are
/// counted first, for a row that grows is there twice for a moment.
///
/// # Errors
/// The value has no such form.
pub fn encode(form: u8, value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    let counted = postcard::serialize_with_flavor(value, Size::default())?;
    let mut bytes = Vec::with_capacity(1 + counted);
    bytes.push(form);
    Ok(postcard::to_extend(value, bytes)?)
}

/// A value out of bytes, as [`encode`] made them of a value of this form; floating-point numbers keep every bit.
///
/// # Errors
/// They are of another form, or not of that shape.
pub fn decode<T: DeserializeOwned>(form: u8, bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&first, value)) if first == form => match postcard::take_from_bytes(value)? {
            (value, []) => Ok(value),
            _ => Err("the state is longer than it should be".into()),
        },
        Some((other, _)) => Err(format!("the state is of form {other}, and form {form} is known").into()),
        None => Err("the state is empty".into()),
    }
}

/// Why a state is refused that means something else: what it has, and what the configuration says.
pub fn other_meaning(state: impl fmt::Display, configuration: impl fmt::Display) -> Error {
    format!(
        "the state has {state}, and the configuration says {configuration}; a transform of another `name` begins \
         without state"
    )
    .into()
}

/// The values of several [snapshots](crate::Plugin::restore_part).
///
/// # Errors
/// As [`decode`].
pub fn decode_all<T: DeserializeOwned>(form: u8, snapshots: &[Vec<u8>]) -> Result<Vec<T>> {
    snapshots.iter().map(|snapshot| decode(form, snapshot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bit_comes_back(value: Vec<(String, Option<i64>, f64)>) {
            let bytes = encode(3, &value).unwrap();
            prop_assert_eq!(bytes.capacity(), bytes.len());
            let again: Vec<(String, Option<i64>, f64)> = decode(3, &bytes).unwrap();
            prop_assert_eq!(encode(3, &again).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode::<Vec<(String, Option<i64>, f64)>>(3, &bytes);
        }
    }

    #[test]
    fn what_was_not_written_so_is_refused() {
        let bytes = encode(1, &7u64).unwrap();
        let refused = |bytes: &[u8], form| decode::<u64>(form, bytes).unwrap_err().to_string();
        assert_eq!(refused(&bytes, 2), "the state is of form 1, and form 2 is known");
        assert_eq!(refused(&[], 1), "the state is empty");
        assert_eq!(refused(&[1, 7, 7], 1), "the state is longer than it should be");
        assert_eq!(refused(&[1], 1), "Hit the end of buffer, expected more data");
    }
}
