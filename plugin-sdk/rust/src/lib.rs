//! The Rust SDK: a trait, a macro, and what a plugin needs around them.
//!
#![doc = include_str!("../README.md")]

pub mod binary;
pub mod clock;
pub mod condition;
pub mod connector;
pub mod csv;
pub mod duration;
pub mod event_time;
pub mod http;
pub mod json;
pub mod keyed;
pub mod log;
pub mod metrics;
pub mod random;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod windows;

// Public for the code that `export!` puts into the plugin's crate, and for nobody else.
#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod instance;

mod configuration;
mod description;
mod emissions;
mod fields;
mod message;
mod outcome;
mod panics;
mod part;
mod plugin;
mod writing;

pub use description::{Description, Output, Read, Write};
pub use emissions::{Emission, Emissions};
pub use fields::{Edit, EditValue, Field, Json, Number, Text};
pub use message::{Batch, Message};
pub use outcome::{Out, Outcome};
pub use part::{Part, hash};
pub use plugin::Plugin;

/// Any error: its text is what the host shows. `?` makes it of every error type, and `.into()` of a
/// text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error is any [`Error`].
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// The configuration of a plugin that has none: any key is refused.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Makes the crate a component: `export!(Type)` of a [`Plugin`], or `export!(fn name)` of a function
/// `fn(Message<'_>, &mut Out<'_>) -> Result` that decides on each message and needs no more.
///
/// Once in a crate, whose `crate-type` is `cdylib`. Natively it exports nothing, so that unit tests
/// build.
#[macro_export]
macro_rules! export {
    (fn $function:expr $(,)?) => {
        const _: () = {
            const DECIDE: fn($crate::Message<'_>, &mut $crate::Out<'_>) -> $crate::Result = $function;
            struct Function;
            impl $crate::Plugin for Function {
                type Config = $crate::NoConfig;
                fn new(_: $crate::NoConfig, _: &mut $crate::Description) -> $crate::Result<Self> {
                    Ok(Self)
                }
                fn process(
                    &mut self,
                    message: $crate::Message<'_>,
                    out: &mut $crate::Out<'_>,
                ) -> $crate::Result {
                    DECIDE(message, out)
                }
            }
            $crate::export!(Function);
        };
    };
    ($plugin:ty $(,)?) => {
        const _: () = {
            const fn must_be_a_plugin<P: $crate::Plugin>() {}
            must_be_a_plugin::<$plugin>();

            #[cfg(target_arch = "wasm32")]
            struct Component;
            #[cfg(target_arch = "wasm32")]
            impl $crate::instance::Component for Component {
                type Plugin = $plugin;
                fn place() -> &'static ::std::thread::LocalKey<
                    ::std::cell::RefCell<::std::option::Option<$crate::instance::Instance<$plugin>>>,
                > {
                    ::std::thread_local! {
                        static PLACE: ::std::cell::RefCell<
                            ::std::option::Option<$crate::instance::Instance<$plugin>>,
                        > = const { ::std::cell::RefCell::new(::std::option::Option::None) };
                    }
                    &PLACE
                }
            }
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export_transformer!(Component with_types_in $crate::bindings);
        };
    };
}
