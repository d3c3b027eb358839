//! What is read of a tree that may be anyone's. The kernel's own trees stay far below: 7.2 has
//! 1,900 files with 6 MB, and no condition nests more than 10 deep.

/// Files read for one tree; one that is included twice counts twice.
pub(super) const FILES_MAX: usize = 20_000;
/// The largest file, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;
/// All files together, in bytes.
pub(super) const TREE_BYTES_MAX: u64 = 64 << 20;
/// Files that include one another.
pub(super) const SOURCE_DEPTH_MAX: usize = 48;
/// Menus, choices and ifs around one another.
pub(super) const BLOCK_DEPTH_MAX: usize = 128;
/// Parentheses and negations within one another in a condition.
pub(super) const EXPRESSION_DEPTH_MAX: usize = 64;
/// Names that one pattern of an include is compared with.
pub(super) const PATTERN_NAMES_MAX: usize = 10_000;
/// Lines that were not understood before the tree is given up.
pub(super) const PUZZLES_MAX: usize = 1_000;

/// Macros that refer to one another.
pub(super) const MACRO_DEPTH_MAX: usize = 64;
/// Arguments of a macro; as the kernel's own.
pub(super) const ARGUMENTS_MAX: usize = 16;
/// What one macro may become, in bytes.
pub(super) const EXPANSION_BYTES_MAX: usize = 64 << 10;
/// Bytes that all macros of a tree may go through; 7.2 needs 80,000.
pub(super) const MACRO_WORK_MAX: usize = 4 << 20;
