//! The export `process`, called so that the batch and the outcome stay where they are.
//!
//! The generated function takes the batch and returns the outcome themselves, 100 and 300 bytes that are moved a dozen
//! times on their way through the futures and wasmtime's fiber: a sixth of what a call of one message costs. Here the
//! batch is borrowed, and the outcome is behind a pointer as soon as it is lifted.

use super::batch::GuestBatch;
use super::bindings::tidemill::plugin::types::Outcome;
use super::imports::StoreData;
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext};
use wasmtime::component::{ComponentExportIndex, ComponentType, Func, Instance, Lift, TypedFunc};
use wasmtime::{Store, format_err};

type Function<'a> = TypedFunc<(&'a GuestBatch<'a>,), (Result<Boxed<Outcome>, String>,)>;

/// The function of one instance. Its type was checked.
pub(super) struct ProcessExport(Func);

impl ProcessExport {
    /// # Errors
    /// The instance has no such function of the contract's type.
    pub(super) fn try_new(
        store: &mut Store<StoreData>,
        instance: &Instance,
        index: &ComponentExportIndex,
    ) -> wasmtime::Result<Self> {
        let function = instance.get_func(&mut *store, index);
        let function = function.ok_or_else(|| format_err!("process is not a function"))?;
        let _: Function<'_> = function.typed(&*store)?;
        Ok(Self(function))
    }

    /// # Cancel safety
    /// None: the store cannot be used any more when the future is dropped before its end.
    #[inline]
    pub(super) async fn call(
        &self,
        store: &mut Store<StoreData>,
        batch: &GuestBatch<'_>,
    ) -> wasmtime::Result<Result<Box<Outcome>, String>> {
        #[expect(unsafe_code, reason = "try_new has checked that the function is of this type")]
        let function = unsafe { Function::new_unchecked(self.0) };
        let (answer,) = function.call_async(store, (batch,)).await?;
        Ok(answer.map(|outcome| outcome.0))
    }
}

/// A value that crosses like the one behind the pointer.
struct Boxed<T>(Box<T>);

#[expect(
    unsafe_code,
    reason = "everything is as the type behind the pointer says, whose own promises these are"
)]
// SAFETY: the layout, the flat values and the check of the type are those of `T`.
unsafe impl<T: ComponentType> ComponentType for Boxed<T> {
    type Lower = T::Lower;
    const ABI: CanonicalAbiInfo = T::ABI;
    const IS_RUST_UNIT_TYPE: bool = false;
    const MAY_REQUIRE_REALLOC: bool = T::MAY_REQUIRE_REALLOC;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        T::typecheck(ty, types)
    }
}

#[expect(
    unsafe_code,
    reason = "everything is as the type behind the pointer says, whose own promises these are"
)]
// SAFETY: what is lifted is what `T` lifts.
unsafe impl<T: Lift> Lift for Boxed<T> {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        flat: &T::Lower,
    ) -> wasmtime::Result<Self> {
        T::linear_lift_from_flat(cx, ty, flat).map(|value| Self(Box::new(value)))
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> wasmtime::Result<Self> {
        T::linear_lift_from_memory(cx, ty, bytes).map(|value| Self(Box::new(value)))
    }
}
