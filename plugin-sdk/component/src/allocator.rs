//! Gives a module of Go the allocator through which the host passes lists and strings: `cabi_realloc`.
//!
//! Each list that crosses needs the allocator once. To enter Go's runtime for it would take 30 ns a list, and
//! a garbage collection could begin there, when nothing of the host can be called. So it is a few instructions
//! beside Go, which take from room that Go allocated. Only when that is used up do they call Go, as
//! `tidemill_more_room`; `plugin-sdk/go/internal/boundary` is the
//! other side.

use crate::ComponentError;
use wasm_encoder::{Encode as _, ExportKind, ExportSection, Function, MemArg, Module, RawSection, SectionId};
use wasmparser::{BinaryReader, DataKind, ExternalKind, Operator, Parser, Payload, TypeRef};

/// Where the Go side and the adapter keep what they share, in the part of the memory that Go's linker
/// leaves to `wasm_exec.js`, the launcher of another target. `adapter.wat` says how it is laid out.
const ROOM: u64 = 4096;
/// Where Go's data begins.
const DATA: i32 = 4096 + 8192;
/// What is free of the room: from here, to there.
const NEXT: MemArg = MemArg { offset: ROOM, align: 2, memory_index: 0 };
const END: MemArg = MemArg { offset: ROOM + 4, align: 2, memory_index: 0 };

/// What the Go side exports for the allocator.
const MORE_ROOM: &str = "tidemill_more_room";
/// The type of `cabi_realloc`: four 32-bit numbers in, one out.
const REALLOC_TYPE: [u8; 8] = [0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f];

/// The module with the allocator, and with those of its exports that are kept. What is added stands behind what is there, so
/// that no number of a function or type changes.
pub(crate) fn added(module: &[u8], mut is_kept: impl FnMut(&str) -> bool) -> Result<Vec<u8>, ComponentError> {
    let (mut types, mut functions) = (0, 0);
    let mut more_room = None;
    let mut to = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        let section = payload.as_section();
        match &payload {
            Payload::TypeSection(section) => types = section.count(),
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    functions += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(section) => functions += section.count(),
            Payload::DataSection(segments) => {
                for segment in segments.clone() {
                    check_offset(&segment?.kind)?;
                }
            }
            _ => {}
        }
        let Some((id, range)) = section else { continue };
        let old = &module[range];
        if id == SectionId::Type as u8 {
            copy(&mut to, id, &appended(old, &REALLOC_TYPE)?);
        } else if id == SectionId::Function as u8 {
            let mut function_type = Vec::new();
            types.encode(&mut function_type);
            copy(&mut to, id, &appended(old, &function_type)?);
        } else if let Payload::ExportSection(section) = payload {
            let mut exports = ExportSection::new();
            for export in section {
                let export = export?;
                if export.name == MORE_ROOM {
                    more_room = Some(export.index);
                } else if is_kept(export.name) {
                    exports.export(export.name, kind(export.kind)?, export.index);
                }
            }
            exports.export("cabi_realloc", ExportKind::Func, functions);
            to.section(&exports);
        } else if id == SectionId::Code as u8 {
            let more_room = more_room.ok_or(ComponentError::NoPlugin)?;
            let mut code = Vec::new();
            realloc(more_room).encode(&mut code);
            copy(&mut to, id, &appended(old, &code)?);
        } else {
            copy(&mut to, id, old);
        }
    }
    Ok(to.finish())
}

/// `cabi_realloc(old, old_size, align, size)`
fn realloc(more_room: u32) -> Function {
    let (old, old_size, align, size, start) = (0, 1, 2, 3, 4);
    let mut function = Function::new([(1, wasm_encoder::ValType::I32)]);
    let mut code = function.instructions();
    // start = (next + align - 1) & -align
    code.i32_const(0).i32_load(NEXT).local_get(align).i32_add().i32_const(1).i32_sub();
    code.i32_const(0).local_get(align).i32_sub().i32_and().local_set(start);
    // If nothing is to be moved, and there is room: next = start + size.
    code.local_get(old).i32_eqz();
    code.local_get(start).i32_const(0).i32_load(END).i32_le_u().i32_and();
    code.local_get(size).i32_const(0).i32_load(END).local_get(start).i32_sub().i32_le_u().i32_and();
    code.if_(wasm_encoder::BlockType::Empty);
    code.i32_const(0).local_get(start).local_get(size).i32_add().i32_store(NEXT);
    code.else_();
    code.local_get(align).local_get(size).call(more_room).local_tee(start);
    code.local_get(old).local_get(old_size).memory_copy(0, 0);
    code.end();
    code.local_get(start).end();
    function
}

/// A section with one entry more: they all begin with the number of their entries.
fn appended(section: &[u8], entry: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let mut reader = BinaryReader::new(section, 0);
    let count = reader.read_var_u32()?;
    let mut with = Vec::with_capacity(section.len() + entry.len() + 1);
    (count + 1).encode(&mut with);
    with.extend_from_slice(&section[reader.original_position()..]);
    with.extend_from_slice(entry);
    Ok(with)
}

fn copy(to: &mut Module, id: u8, data: &[u8]) {
    to.section(&RawSection { id, data });
}

fn kind(kind: ExternalKind) -> Result<ExportKind, ComponentError> {
    match kind {
        ExternalKind::Func => Ok(ExportKind::Func),
        ExternalKind::Memory => Ok(ExportKind::Memory),
        ExternalKind::Global => Ok(ExportKind::Global),
        ExternalKind::Table => Ok(ExportKind::Table),
        other => Err(ComponentError::Toolchain(format!("it exports a {other:?}"))),
    }
}

/// Data must not lie where the room is.
fn check_offset(kind: &DataKind<'_>) -> Result<(), ComponentError> {
    let DataKind::Active { offset_expr, .. } = kind else { return Ok(()) };
    match offset_expr.get_operators_reader().read()? {
        Operator::I32Const { value } if value >= DATA => Ok(()),
        at => Err(ComponentError::Toolchain(format!("its data begins at {at:?}"))),
    }
}
