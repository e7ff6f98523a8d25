//! What an instance may use of memory, counted by a limiter that wasmtime asks before anything grows.
//!
//! Nothing is ever given back but with the whole instance: memories and tables do not shrink. A growth that
//! was allowed and failed all the same stays counted, for wasmtime tells failures of growths that it had never
//! asked about in the same words, and to give back for those would let a guest count down as it likes.

use std::fmt;
use wasmtime::ResourceLimiter;

/// A slot of a table is a pointer, and a table that grows takes up to twice what it needs.
const TABLE_SLOT_BYTES: usize = 2 * size_of::<usize>();
/// Most core instances, and most tables, of one plugin: Python's components have about 20.
const MAX_PARTS: usize = 256;
/// Most memories of one plugin: each takes 4 GiB of addresses, used or not.
const MAX_MEMORIES: usize = 32;

/// A growth that the limiter refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrowthRefusal {
    wanted_bytes: usize,
    limit_bytes: usize,
}

impl fmt::Display for GrowthRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wanted {} bytes of memory, limits.memory is {}", self.wanted_bytes, self.limit_bytes)
    }
}

/// Bounds all memories and tables of one instance together.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit_bytes: usize,
    used_bytes: usize,
    /// What was taken while state was carried, by which the limit stays raised: it cannot be given back.
    carried_bytes: usize,
    is_carrying: bool,
    refused: Option<GrowthRefusal>,
}

impl MemoryLimiter {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: 0, carried_bytes: 0, is_carrying: false, refused: None }
    }

    pub(super) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// A call begins. One that carries state, out of the instance or into it, has as much again for
    /// itself: state is needed most when memory is nearly full.
    pub(super) fn begin(&mut self, is_carrying: bool) {
        self.is_carrying = is_carrying;
        self.refused = None;
    }

    /// What was refused in the current call.
    pub(super) fn take_refusal(&mut self) -> Option<GrowthRefusal> {
        self.refused.take()
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, unit_bytes: usize) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let bytes = desired.saturating_sub(current).saturating_mul(unit_bytes);
        let wanted_bytes = self.used_bytes.saturating_add(bytes);
        let extra_bytes = if self.is_carrying { self.limit_bytes } else { self.carried_bytes };
        if wanted_bytes > self.limit_bytes.saturating_add(extra_bytes) {
            self.refused = Some(GrowthRefusal { wanted_bytes, limit_bytes: self.limit_bytes });
            return false;
        }
        self.used_bytes = wanted_bytes;
        if self.is_carrying {
            self.carried_bytes = (self.carried_bytes + bytes).min(self.limit_bytes);
        }
        true
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, TABLE_SLOT_BYTES))
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiler::{Traces, config};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn memories_and_tables_share_one_limit_and_a_refusal_is_remembered() {
        let mut limiter = MemoryLimiter::new(LIMIT);
        assert!(limiter.memory_growing(0, 1 << 19, None).unwrap());
        assert!(limiter.memory_growing(0, 1 << 18, None).unwrap());
        assert!(!limiter.memory_growing(1 << 18, 1 << 20, Some(1 << 19)).unwrap());
        assert_eq!(limiter.take_refusal(), None, "the memory's own maximum is no refusal of ours");
        assert!(!limiter.table_growing(0, 1 << 15, None).unwrap());
        let refusal = limiter.take_refusal().unwrap();
        assert_eq!(refusal.to_string(), "wanted 1310720 bytes of memory, limits.memory is 1048576");
        assert!(limiter.table_growing(0, 1 << 14, None).unwrap());
        assert_eq!(limiter.used_bytes(), LIMIT);
    }

    /// What a guest can make wasmtime do.
    #[derive(Clone, Debug)]
    enum Step {
        /// A memory or a table that there is grows by so much, if it may.
        Grow { place: usize, by: usize },
        /// A growth that was allowed fails.
        GrowInVain { place: usize, by: usize },
        /// A growth fails that the limiter was not asked about.
        Unasked { is_table: bool },
        /// A call begins.
        Begin { is_carrying: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let by = prop_oneof![0..LIMIT / 2, Just(usize::MAX)];
        prop_oneof![
            4 => (0..6_usize, by.clone()).prop_map(|(place, by)| Step::Grow { place, by }),
            1 => (0..6_usize, by).prop_map(|(place, by)| Step::GrowInVain { place, by }),
            2 => any::<bool>().prop_map(|is_table| Step::Unasked { is_table }),
            2 => any::<bool>().prop_map(|is_carrying| Step::Begin { is_carrying }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_guest_does_it_has_no_more_than_the_limiter_counts(steps in vec(step(), 0..200)) {
            let mut limiter = MemoryLimiter::new(LIMIT);
            // Three memories, then three tables, in units of their own.
            let mut sizes = [0_usize; 6];
            let unit = |place: usize| if place < 3 { 1 } else { size_of::<usize>() };
            let mut is_carrying = false;
            for step in steps {
                match step {
                    Step::Grow { place, by } | Step::GrowInVain { place, by } => {
                        let by = if by == usize::MAX { by } else { by / unit(place) };
                        let wanted = sizes[place].saturating_add(by);
                        let may = if place < 3 {
                            limiter.memory_growing(sizes[place], wanted, None).unwrap()
                        } else {
                            limiter.table_growing(sizes[place], wanted, None).unwrap()
                        };
                        match step {
                            Step::Grow { .. } if may => sizes[place] = wanted,
                            Step::GrowInVain { .. } if may => fail(&mut limiter, place >= 3),
                            _ => {}
                        }
                    }
                    Step::Unasked { is_table } => fail(&mut limiter, is_table),
                    Step::Begin { is_carrying: carries } => {
                        is_carrying = carries;
                        limiter.begin(carries);
                    }
                }
                let real: usize = sizes.iter().enumerate().map(|(place, size)| size * unit(place)).sum();
                prop_assert!(real <= limiter.used_bytes());
                prop_assert!(limiter.used_bytes() <= 2 * LIMIT);
                if limiter.carried_bytes == 0 && !is_carrying {
                    prop_assert!(limiter.used_bytes() <= LIMIT);
                }
            }
        }

        #[test]
        fn what_state_took_to_be_carried_leaves_the_calls_after_it_what_they_had(
            before in 0..=LIMIT, carried in 0..=2 * LIMIT
        ) {
            let mut limiter = MemoryLimiter::new(LIMIT);
            prop_assert!(limiter.memory_growing(0, before, None).unwrap());
            limiter.begin(true);
            let fits = limiter.memory_growing(before, before.saturating_add(carried), None).unwrap();
            prop_assert_eq!(fits, before + carried <= 2 * LIMIT);
            limiter.begin(false);
            let now = limiter.used_bytes();
            let rest = LIMIT - before;
            if fits && carried <= LIMIT {
                prop_assert!(limiter.memory_growing(now, now + rest, None).unwrap());
                prop_assert!(!limiter.memory_growing(now + rest, now + rest + 1, None).unwrap());
            }
        }
    }

    /// Grows a memory by 50 MiB and has a table's growth fail, forty times in turn; says how large the
    /// memory is in the end.
    const ESCAPE: &str = r#"(module
        (memory 1) (table $t 1 funcref)
        (func (export "run") (result i32) (local $i i32)
            (loop $again
                (drop (memory.grow (i32.const 800)))
                (drop (table.grow $t (ref.null func) (i32.const -1)))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 40))))
            (memory.size)))"#;

    #[test]
    fn a_growth_that_fails_gives_nothing_back_that_others_took() {
        let engine = wasmtime::Engine::new(&config(Traces::Names)).unwrap();
        let module = wasmtime::Module::new(&engine, wat::parse_str(ESCAPE).unwrap()).unwrap();
        let mut store = wasmtime::Store::new(&engine, MemoryLimiter::new(64 << 20));
        store.limiter(|limiter| limiter);
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<(), i32>(&mut store, "run").unwrap();
        let pages = run.call(&mut store, ()).unwrap();
        assert_eq!(pages, 801, "one growth of 50 MiB fits into 64 MiB, the second does not");
    }

    #[test]
    fn a_component_has_no_more_parts_than_it_may() {
        let engine = wasmtime::Engine::new(&config(Traces::Names)).unwrap();
        let parts = |count: usize, part: &str| {
            let instances = "(core instance (instantiate $m))".repeat(count);
            let wasm = wat::parse_str(format!("(component (core module $m {part}) {instances})")).unwrap();
            let component = wasmtime::component::Component::new(&engine, wasm).unwrap();
            let mut store = wasmtime::Store::new(&engine, MemoryLimiter::new(64 << 20));
            store.limiter(|limiter| limiter);
            store.set_epoch_deadline(u64::MAX / 2);
            let linker = wasmtime::component::Linker::new(&engine);
            linker.instantiate(&mut store, &component).map(drop)
        };
        assert!(parts(MAX_MEMORIES, "(memory 1)").is_ok());
        assert!(parts(MAX_MEMORIES + 1, "(memory 1)").is_err());
        assert!(parts(MAX_PARTS - 1, "").is_ok());
        assert!(parts(MAX_PARTS + 1, "").is_err());
        assert!(parts(1, "(table 1000 funcref)").is_ok());
        assert!(parts(1, "(table 9000000 funcref)").is_err(), "its slots would take more than 64 MiB");
    }

    fn fail(limiter: &mut MemoryLimiter, is_table: bool) {
        let error = wasmtime::Error::msg("no memory");
        let told =
            if is_table { limiter.table_grow_failed(error) } else { limiter.memory_grow_failed(error) };
        told.unwrap();
    }
}
