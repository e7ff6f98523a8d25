//! The declaration of tables: one statement of each key, from which come the struct that the host reads,
//! its default, the reader that reports what is wrong, the reference and the JSON Schema.
//!
//! `table!` declares a table of the file:
//!
//! ```text
//! table! {
//!     /// The schedule of reconnection.
//!     #[derive(Clone, Copy, Debug, PartialEq)]
//!     pub struct Reconnect / ReconnectAt {
//!         /// before the first attempt; doubles with each
//!         delay: Duration = key(SomeDuration, default(secs(1)));
//!     }
//!     later ["strategy"];
//!     check delays;
//! }
//! ```
//!
//! The doc comment of a field is the documentation of its key, in one line. `ReconnectAt` has for each
//! field where its value is written, or `None`: left out, or wrong and reported. A field is one of:
//!
//! - `key(FORM, ABSENT)`, or `key("name", FORM, ABSENT)` where the key has another name than the field.
//!   The form (`form.rs`) says what may be written and makes the value of it. `ABSENT` says what stands
//!   for a key that is left out: `required` (of a table that has no default: `required(TABLE)`), `optional` (the field is an `Option`), `default(VALUE)`,
//!   `inherit(FIELD)` (of `[server]`), or `settled("text")` where `check` sets it, and says how.
//! - `shared(KEY)`: a key of several tables, declared by `shared_key!`.
//! - `flat(TABLE)`: the keys of another table, which stand in this one; `flat_as(TABLE)` where the field
//!   has another type, which the table becomes.
//! - `only(CASE, FIELD)`: one of these, in one case of a `choices!` alone.
//!
//! `beside` has fields that are no keys, `unused` keys that are checked and lead to nothing yet, `later` names that are refused as not built
//! yet, and `check` a function for what several keys together must be. `choices!` declares an enum whose
//! case one key decides, and `words!` an enum of the strings that a key may be.
//!
//! Reading never stops at an error. What cannot be read stands as a placeholder, so that the rest is still
//! looked at; nobody gets a value of a file that has an error.

/// The documentation of a key, out of the lines of its doc comment.
macro_rules! doc_text {
    ($($doc:literal)*) => { concat!($($doc),*).trim_start() };
}

/// The type of where a field is written.
macro_rules! field_at {
    (key($name:literal, $($rest:tt)*)) => { field_at!(key($($rest)*)) };
    (key($form:ty, $($absent:tt)*)) => { Option<<$form as $crate::config::read::Form>::At> };
    (shared($key:ty)) => { Option<<$key as $crate::config::read::SharedKey>::At> };
    (flat($table:ty)) => { <$table as $crate::config::read::Table>::At };
    (flat_as($table:ty)) => { <$table as $crate::config::read::Table>::At };
    (only($case:expr, $how:ident($($args:tt)*))) => { field_at!($how($($args)*)) };
}

/// Reads a field, and sets where it is written.
macro_rules! read_field {
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $field:ident, key($name:literal, $($rest:tt)*)) => {
        read_key!($reader, $written, $at, $doc, $name, $($rest)*)
    };
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $field:ident, key($($rest:tt)*)) => {
        read_key!($reader, $written, $at, $doc, stringify!($field), $($rest)*)
    };
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $field:ident, shared($key:ty)) => {
        <$key>::read_field($reader, $written, &mut $at)
    };
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $field:ident, flat($table:ty)) => {{
        let (value, at) = <$table as $crate::config::read::Table>::read($reader, $written);
        $at = at;
        value
    }};
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $field:ident, flat_as($table:ty)) => {{
        let (value, at) = <$table as $crate::config::read::Table>::read($reader, $written);
        $at = at;
        $crate::config::read::Becomes::become_it(value)
    }};
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $field:ident,
        only($case:expr, $how:ident($($args:tt)*))) => {
        if $written.has($case) {
            read_field!($reader, $written, $at, $doc, $field, $how($($args)*))
        } else {
            absent_field!($how($($args)*))
        }
    };
}

/// Reads a key, or what stands for it.
macro_rules! read_key {
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $name:expr, $form:ty, optional) => {
        match $reader.key::<$form>($written, $name) {
            Some((value, at)) => {
                $at = Some(at);
                Some(value)
            }
            None => None,
        }
    };
    ($reader:ident, $written:ident, $at:expr, $doc:expr, $name:expr, $form:ty, $($absent:tt)*) => {
        match $reader.key::<$form>($written, $name) {
            Some((value, at)) => {
                $at = Some(at);
                value
            }
            None => absent_key!($reader, $written, $doc, $name, $($absent)*),
        }
    };
}

/// What stands for a key that is left out or wrong.
macro_rules! absent_key {
    ($reader:ident, $written:ident, $doc:expr, $name:expr, required) => {{
        $reader.missing($written, $name, $doc);
        Default::default()
    }};
    ($reader:ident, $written:ident, $doc:expr, $name:expr, required($table:ty)) => {{
        $reader.missing($written, $name, $doc);
        $reader.blank::<$table>(&$written.header).0
    }};
    ($reader:ident, $written:ident, $doc:expr, $name:expr, default($value:expr)) => {
        $value
    };
    ($reader:ident, $written:ident, $doc:expr, $name:expr, inherit($of:ident)) => {
        $reader.inherited().$of.clone()
    };
    ($reader:ident, $written:ident, $doc:expr, $name:expr, settled($($text:literal)?)) => {
        Default::default()
    };
}

/// What stands for a field that the table has in another case.
macro_rules! absent_field {
    (key($name:literal, $($rest:tt)*)) => { absent_field!(key($($rest)*)) };
    (key($form:ty, optional)) => { None };
    (key($form:ty, default($value:expr))) => { $value };
    (flat($table:ty)) => { <$table>::default() };
}

/// Adds a field to the parts of a shape.
macro_rules! add_field {
    ($parts:ident, $doc:expr, $field:ident, key($name:literal, $($rest:tt)*)) => {
        add_key!($parts, $doc, $name, $($rest)*)
    };
    ($parts:ident, $doc:expr, $field:ident, key($($rest:tt)*)) => {
        add_key!($parts, $doc, stringify!($field), $($rest)*)
    };
    ($parts:ident, $doc:expr, $field:ident, shared($key:ty)) => {
        $parts.push($crate::config::shape::ShapePart::Key(<$key>::key()))
    };
    ($parts:ident, $doc:expr, $field:ident, flat($table:ty)) => {
        $parts.extend(<$table as $crate::config::read::Table>::shape().parts.iter().cloned())
    };
    ($parts:ident, $doc:expr, $field:ident, flat_as($table:ty)) => {
        $parts.extend(<$table as $crate::config::read::Table>::shape().parts.iter().cloned())
    };
    ($parts:ident, $doc:expr, $field:ident, only($case:expr, $how:ident($($args:tt)*))) => {{
        let mut inner: Vec<$crate::config::shape::ShapePart> = Vec::new();
        add_field!(inner, $doc, $field, $how($($args)*));
        $parts.push($crate::config::shape::ShapePart::Only { case: $case, parts: inner });
    }};
}

macro_rules! add_key {
    ($parts:ident, $doc:expr, $name:expr, $form:ty, $($absent:tt)*) => {
        $parts.push($crate::config::shape::ShapePart::Key(key_of!($doc, $name, $form, $($absent)*)))
    };
}

macro_rules! key_of {
    ($doc:expr, $name:expr, $form:ty, $($absent:tt)*) => {
        $crate::config::shape::Key {
            name: $name,
            kind: <$form as $crate::config::read::Form>::KIND,
            absent: absent_of!($form, $($absent)*),
            doc: $doc,
            takes_files: <$form as $crate::config::read::Form>::TAKES_FILES,
        }
    };
}

macro_rules! absent_of {
    ($form:ty, required $(($table:ty))?) => {
        $crate::config::shape::Absent::Required
    };
    ($form:ty, optional) => {
        $crate::config::shape::Absent::None
    };
    ($form:ty, inherit($of:ident)) => {
        $crate::config::shape::Absent::None
    };
    ($form:ty, settled()) => {
        $crate::config::shape::Absent::None
    };
    ($form:ty, settled($text:literal)) => {
        $crate::config::shape::Absent::Settled($text)
    };
    ($form:ty, default($value:expr)) => {
        $crate::config::shape::Absent::Default(<$form as $crate::config::read::Form>::show(&$value))
    };
}

/// Declares a table: see the head of this file.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident / $at:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $how:ident($($args:tt)*);
            )*
        }
        $(beside {
            $(
                $(#[doc = $beside_doc:literal])+
                $beside:ident: $beside_type:ty;
            )*
        })?
        $(unused {
            $(
                $(#[doc = $unused_doc:literal])+
                $unused:ident = $unused_how:ident($($unused_args:tt)*);
            )*
        })?
        $(later [$($later:literal),* $(,)?];)?
        $(check $check:path;)?
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $(
                $(#[doc = $doc])+
                $vis $field: $type,
            )*
            $($(
                $(#[doc = $beside_doc])+
                $vis $beside: $beside_type,
            )*)?
        }

        #[doc = concat!("Where a [`", stringify!($name), "`] is written.")]
        #[derive(Clone, Debug, Default)]
        #[allow(dead_code, reason = "not every place is asked for")]
        pub(in crate::config) struct $at {
            /// Its header, or its braces, or those of the table it stands in.
            pub(in crate::config) header: $crate::config::report::Span,
            $( pub(in crate::config) $field: field_at!($how($($args)*)), )*
        }

        impl $crate::config::read::Table for $name {
            type At = $at;

            #[allow(clippy::vec_init_then_push, reason = "each field adds what it is made of")]
            fn shape() -> &'static $crate::config::shape::Shape {
                static SHAPE: std::sync::LazyLock<$crate::config::shape::Shape> =
                    std::sync::LazyLock::new(|| {
                        let mut parts = Vec::new();
                        $( add_field!(parts, doc_text!($($doc)+), $field, $how($($args)*)); )*
                        $($(
                            add_field!(parts, doc_text!($($unused_doc)+), $unused, $unused_how($($unused_args)*));
                        )*)?
                        $($( parts.push($crate::config::shape::ShapePart::Later($later)); )*)?
                        $crate::config::shape::Shape { parts }
                    });
                &SHAPE
            }

            fn read(
                reader: &mut $crate::config::read::TableReader<'_, '_>,
                written: &$crate::config::read::Written<'_, '_>,
            ) -> (Self, $at) {
                let mut at = $at { header: written.header.clone(), ..Default::default() };
                $(
                    let $field: $type =
                        read_field!(reader, written, at.$field, doc_text!($($doc)+), $field, $how($($args)*));
                )*
                $($(
                    let mut $unused = None;
                    let value =
                        read_field!(reader, written, $unused, doc_text!($($unused_doc)+), $unused, $unused_how($($unused_args)*));
                    let _ = ($unused, value);
                )*)?
                let value = Self { $($field,)* $($($beside: Default::default(),)*)? };
                $(
                    let value = {
                        let mut value = value;
                        $check(&mut value, &at, reader);
                        value
                    };
                )?
                (value, at)
            }
        }
    };
}

/// Declares a key that several tables have.
macro_rules! shared_key {
    ($(#[doc = $doc:literal])+ $name:ident = key($key:literal, $form:ty, $($absent:tt)*);) => {
        $(#[doc = $doc])+
        pub(in crate::config) struct $name;

        impl $name {
            pub(in crate::config) fn key() -> $crate::config::shape::Key {
                key_of!(doc_text!($($doc)+), $key, $form, $($absent)*)
            }

            pub(in crate::config) fn read_field(
                reader: &mut $crate::config::read::TableReader<'_, '_>,
                written: &$crate::config::read::Written<'_, '_>,
                at: &mut Option<<$form as $crate::config::read::Form>::At>,
            ) -> <$form as $crate::config::read::Form>::Value {
                read_key!(reader, written, *at, doc_text!($($doc)+), $key, $form, $($absent)*)
            }
        }

        impl $crate::config::read::SharedKey for $name {
            type At = <$form as $crate::config::read::Form>::At;
        }
    };
}

/// Declares an enum whose case one key decides, each with the table that has the other keys.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident / $at:ident / $cases:ident by $tag:literal $doc:literal $absent:ident $(($default:literal))? {
            $( $(#[doc = $case_doc:literal])+ $word:literal => $case:ident($table:ty); )+
        }
        $(later [$($later:literal),* $(,)?];)?
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $( $(#[doc = $case_doc])+ $case($table), )+
        }

        #[doc = concat!("Where a [`", stringify!($name), "`] is written.")]
        #[derive(Clone, Debug, Default)]
        #[allow(dead_code, reason = "not every place is asked for")]
        pub(in crate::config) struct $at {
            pub(in crate::config) header: $crate::config::report::Span,
            /// The key that decides.
            pub(in crate::config) tag: Option<$crate::config::report::Span>,
            /// `None` where it could not be told, which was reported.
            pub(in crate::config) case: Option<$cases::At>,
        }

        #[doc = concat!("The cases of [`", stringify!($name), "`].")]
        pub(in crate::config) mod $cases {
            use super::*;

            #[derive(Clone, Debug)]
            #[allow(dead_code, clippy::large_enum_variant, reason = "not every place is asked for")]
            pub(in crate::config) enum At {
                $( $case(<$table as $crate::config::read::Table>::At), )+
            }

            $(
                #[allow(dead_code, non_upper_case_globals, reason = "it has the name of its case")]
                pub(in crate::config) const $case: $crate::config::shape::CaseOf = ($tag, $word);
            )+
        }

        impl $crate::config::read::Table for $name {
            type At = $at;

            fn shape() -> &'static $crate::config::shape::Shape {
                use $crate::config::shape::{Case, Key, Kind, ShapePart, Shape};
                static SHAPE: std::sync::LazyLock<Shape> = std::sync::LazyLock::new(|| {
                    let tag = Key {
                        name: $tag,
                        kind: Kind::OneOf(|| vec![$($word),+]),
                        absent: absent_choice!($absent $(($default))?),
                        doc: $doc,
                        takes_files: false,
                    };
                    let cases = vec![
                        $( Case { word: $word, parts: Some(<$table as $crate::config::read::Table>::shape().parts.clone()) }, )+
                        $($( Case { word: $later, parts: None }, )*)?
                    ];
                    Shape { parts: vec![ShapePart::Choice { tag, cases }] }
                });
                &SHAPE
            }

            fn read(
                reader: &mut $crate::config::read::TableReader<'_, '_>,
                written: &$crate::config::read::Written<'_, '_>,
            ) -> (Self, $at) {
                let (header, tag) = (written.header.clone(), written.span($tag));
                $(
                    if written.has($cases::$case) {
                        let (value, at) = <$table as $crate::config::read::Table>::read(reader, written);
                        return (Self::$case(value), $at { header, tag, case: Some($cases::At::$case(at)) });
                    }
                )+
                let mut placeholder = None;
                $(
                    if placeholder.is_none() {
                        placeholder = Some(Self::$case(reader.blank::<$table>(&header).0));
                    }
                )+
                let placeholder = placeholder.expect("a choice has a case");
                (placeholder, $at { header, tag: None, case: None })
            }
        }
    };
}

macro_rules! absent_choice {
    (required) => {
        $crate::config::shape::Absent::Required
    };
    (default($word:literal)) => {
        $crate::config::shape::Absent::Default(format!("\"{}\"", $word))
    };
}

/// Declares an enum of the strings that a key may be.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $doc:literal])+ $case:ident = $word:literal, )+
        }
        $(later [$($later:literal),* $(,)?];)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[doc = $doc])+ $case, )+
        }

        impl $crate::config::read::Words for $name {
            const LATER: &'static [&'static str] = &[$($($later),*)?];

            fn all() -> Vec<(&'static str, Self)> {
                vec![$(($word, Self::$case)),+]
            }
        }
    };
}

/// Gives tables that can be left out as a whole the default of that.
macro_rules! with_defaults {
    ($($name:ty),+ $(,)?) => {
        $(
            impl Default for $name {
                fn default() -> Self {
                    $crate::config::read::blank()
                }
            }
        )+
    };
}
