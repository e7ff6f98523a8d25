//! Reads the configuration of a plugin, as JSON, into its type.
//!
//! The types derive `serde::Deserialize`, whose own errors speak of Rust. Here each becomes one sentence that says
//! which key is wrong, what it must be and what it is, in the words of the host's own configuration
//! (`configuration/wrong.rs`).

mod wrong;

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Value, map};
use std::vec;
use wrong::Wrong;

/// Most mistakes of a configuration that are told at once.
const MOST_TOLD: usize = 8;

/// Reads a configuration.
///
/// # Errors
/// It is not of this type; the text says what is wrong with which keys.
pub(crate) fn read<C: DeserializeOwned>(config: &str) -> Result<C, String> {
    let mut config: Value =
        serde_json::from_str(config).map_err(|error| format!("the configuration is no JSON: {error}"))?;
    let mut told: Vec<Wrong> = Vec::new();
    // Reading ends at the first mistake: it is looked for others in what is left without it.
    while told.len() < MOST_TOLD {
        match C::deserialize(Given(config.clone())) {
            Ok(read) if told.is_empty() => return Ok(read),
            Ok(_) => break,
            Err(wrong) => {
                let has_gone = wrong.take_out(&mut config);
                if !told.iter().any(|cause| wrong.may_come_of(cause)) {
                    told.push(wrong);
                }
                if !has_gone {
                    break;
                }
            }
        }
    }
    let mut text = String::new();
    for wrong in told {
        match text.chars().last() {
            None => {}
            Some('?') => text.push_str(" Also: "),
            Some(_) => text.push_str(". Also: "),
        }
        text.push_str(&wrong.to_string());
    }
    Err(text)
}

/// A value of a configuration.
struct Given(Value);

/// The name of a key, which is a number where a map has numbers as keys.
struct Name(String);

/// A number such as `10.0`, where a whole number is wanted.
fn whole(value: &Value) -> Option<i64> {
    /// From here on an `f64` stands for several whole numbers.
    const MANY_FOR_ONE: f64 = 9_007_199_254_740_992.0;
    let number = value.as_number().filter(|number| number.is_f64())?.as_f64()?;
    (number.fract() == 0.0 && number.abs() < MANY_FOR_ONE).then_some(number as i64)
}

/// Whole numbers, which may be written as `10.0` as well.
macro_rules! whole_numbers {
    ($($deserialize:ident)*) => { $(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let whole = whole(&self.0).map(Value::from);
            Given(whole.unwrap_or(self.0)).deserialize_any(visitor)
        }
    )* };
}

impl<'de> Deserializer<'de> for Given {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(truth) => visitor.visit_bool(truth),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(elements) => {
                let mut elements = Elements { elements: elements.into_iter(), next: 0 };
                let value = visitor.visit_seq(&mut elements)?;
                let Elements { elements, next } = elements;
                if elements.len() > 0 {
                    let expected = format!("a list of {next} elements");
                    return Err(Wrong::invalid_length(next + elements.len(), &expected.as_str()));
                }
                Ok(value)
            }
            Value::Object(members) => visitor.visit_map(Members { members: members.into_iter(), open: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Variant { name, value: None }),
            Value::Object(members) if members.len() == 1 => {
                let (name, value) = members.into_iter().next().expect("there is one");
                visitor.visit_enum(Variant { name, value: Some(value) })
            }
            other => Err(Wrong::no_variant(&other, variants)),
        }
    }

    /// Not out of a list, by the places of its fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if self.0.is_array() { Err(Wrong::list_for_table()) } else { self.deserialize_any(visitor) }
    }

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

/// The elements of a list.
struct Elements {
    elements: vec::IntoIter<Value>,
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some(element) = self.elements.next() else { return Ok(None) };
        let place = self.next;
        self.next += 1;
        seed.deserialize(Given(element)).map(Some).map_err(|wrong| wrong.in_element(place))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

/// The members of a table.
struct Members {
    members: map::IntoIter,
    /// The one whose key was read.
    open: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Members {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
        let key = seed.deserialize(Name(name.clone())).map_err(|wrong| wrong.in_key(&name))?;
        self.open = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let (name, value) = self.open.take().expect("a key is read before its value");
        seed.deserialize(Given(value)).map_err(|wrong| wrong.in_member(&name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}

/// Numbers as the names of keys.
macro_rules! numbers {
    ($($deserialize:ident $visit:ident)*) => { $(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_string(self.0),
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Name {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_string(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_enum(Variant { name: self.0, value: None })
    }

    numbers! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// One of the values that an enum has, alone or with what belongs to it.
struct Variant {
    name: String,
    value: Option<Value>,
}

/// What belongs to a variant.
struct Belonging(Variant);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Wrong;
    type Variant = Belonging;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Belonging), Wrong> {
        let name: StringDeserializer<Wrong> = self.name.clone().into_deserializer();
        Ok((seed.deserialize(name)?, Belonging(self)))
    }
}

impl Belonging {
    fn read<T>(self, read: impl FnOnce(Given) -> Result<T, Wrong>) -> Result<T, Wrong> {
        let Variant { name, value } = self.0;
        // As a table that has the name as its only key.
        let value = value.ok_or_else(|| Wrong::missing_member(&name))?;
        read(Given(value)).map_err(|wrong| wrong.in_member(&name))
    }
}

impl<'de> VariantAccess<'de> for Belonging {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        if self.0.value.is_none() { Ok(()) } else { self.read(Deserialize::deserialize) }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Wrong> {
        self.read(|value| seed.deserialize(value))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.read(|value| value.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.read(|value| value.deserialize_struct("", fields, visitor))
    }
}

#[cfg(test)]
mod tests;
