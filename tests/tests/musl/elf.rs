//! Just enough of an ELF file to tell whether a binary is static and stripped (System V ABI,
//! 64 bit, little-endian).

/// `e_machine` of 64-bit ARM.
pub(crate) const AARCH64: u16 = 183;
/// `e_machine` of x86-64.
pub(crate) const X86_64: u16 = 62;

const PT_INTERP: u32 = 3;
const SHT_SYMTAB: u32 = 2;

/// What the headers say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) machine: u16,
    /// Whether it names a dynamic linker.
    pub(crate) interpreted: bool,
    /// Whether it has a table of symbols.
    pub(crate) symbols: bool,
}

/// Reads the headers.
pub(crate) fn read(file: &[u8]) -> Elf {
    let number = |at: usize, bytes: usize| {
        let field = file.get(at..at + bytes).expect("inside of the file");
        field.iter().rev().fold(0usize, |sum, &byte| (sum << 8) | usize::from(byte))
    };
    assert_eq!(file.get(..6), Some(b"\x7fELF\x02\x01".as_slice()), "no 64-bit ELF file");
    // e_phoff, e_phentsize, e_phnum; e_shoff, e_shentsize, e_shnum.
    let programs = (0..number(56, 2)).map(|n| number(number(32, 8) + n * number(54, 2), 4) as u32);
    let sections =
        (0..number(60, 2)).map(|n| number(number(40, 8) + n * number(58, 2) + 4, 4) as u32);
    Elf {
        machine: number(18, 2) as u16,
        interpreted: programs.into_iter().any(|kind| kind == PT_INTERP),
        symbols: sections.into_iter().any(|kind| kind == SHT_SYMTAB),
    }
}

/// The negative control: this test's own program is neither static nor stripped.
#[test]
fn an_ordinary_program_is_seen_as_one() {
    let own = std::fs::read("/proc/self/exe").expect("own program");
    let elf = read(&own);
    assert!(elf.interpreted && elf.symbols, "{elf:?}");
}
