//! Hunks, put into a file's lines as GNU patch does with no fuzz: every context line must be there,
//! at the stated line or at the nearest other place.

use super::{Change, Hunk};

/// How far from its stated line a hunk is looked for, in lines either way.
const DISTANCE_MAX: usize = 50_000;

/// Which way a patch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From old to new.
    Forward,
    /// From new to old: to see whether it has been applied.
    Backward,
}

/// A hunk that has no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPlace {
    /// Which, from 1.
    pub(super) hunk: usize,
    /// Where it should be: a line of the file as it is, from 1.
    pub(super) line: usize,
    /// The first line that is another one there: its number, what the hunk has, what the file has.
    pub(super) differs: Option<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

/// A file with hunks in it.
#[derive(Debug)]
pub(super) struct Placed {
    /// The new content.
    pub(super) content: Vec<u8>,
    /// Hunks that were not at their stated lines: number from 1, and how many lines further down.
    pub(super) moved: Vec<(usize, i64)>,
}

/// One side of a hunk.
struct Side<'a> {
    start: usize,
    lines: Vec<&'a [u8]>,
}

impl<'a> Hunk<'a> {
    fn side(&self, without: Change, start: usize) -> Side<'a> {
        let lines = self.changes.iter().filter(|(change, _)| *change != without);
        let lines: Vec<&[u8]> = lines.map(|(_, text)| *text).collect();
        Side {
            // A side without lines names the line before it.
            start: start.saturating_sub(usize::from(!lines.is_empty())),
            lines,
        }
    }

    /// What is there, and what takes its place.
    fn sides(&self, direction: Direction) -> (Side<'a>, Side<'a>) {
        let old = self.side(Change::Add, self.old_start);
        let new = self.side(Change::Remove, self.new_start);
        match direction {
            Direction::Forward => (old, new),
            Direction::Backward => (new, old),
        }
    }

    /// How many lines of context stand before and behind the changes.
    fn context(&self) -> (usize, usize) {
        let kept = |(change, _): &&(Change, &[u8])| *change == Change::Keep;
        let before = self.changes.iter().take_while(kept).count();
        let behind = self.changes.iter().rev().take_while(kept).count();
        (before, behind)
    }
}

/// Puts all hunks in, or says which has no place.
pub(super) fn place(
    content: &[u8],
    hunks: &[Hunk<'_>],
    direction: Direction,
) -> Result<Placed, NoPlace> {
    let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let mut placed = Placed {
        content: Vec::with_capacity(content.len()),
        moved: Vec::new(),
    };
    let mut done = 0;
    let mut drift = 0_i64;
    for (index, hunk) in hunks.iter().enumerate() {
        let (from, to) = hunk.sides(direction);
        let expected = shifted(from.start, drift);
        let found = find(&lines, done, &from, expected, hunk.context());
        let start = found.ok_or_else(|| NoPlace {
            hunk: index + 1,
            line: expected + 1,
            differs: first_difference(&lines, &from.lines, expected),
        })?;
        drift = signed(start) - signed(from.start);
        if drift != 0 {
            placed.moved.push((index + 1, drift));
        }
        for line in lines[done..start].iter().chain(&to.lines) {
            placed.content.extend_from_slice(line);
        }
        done = start + from.lines.len();
    }
    for line in &lines[done..] {
        placed.content.extend_from_slice(line);
    }
    Ok(placed)
}

/// The place nearest to the stated one, from `done` on. As with git, a hunk that was made at a
/// file's first line belongs there only, one with no context behind its changes at the file's end
/// only, and one with no context at all at its stated line only.
fn find(
    lines: &[&[u8]],
    done: usize,
    side: &Side<'_>,
    expected: usize,
    (before, behind): (usize, usize),
) -> Option<usize> {
    let wanted = &side.lines;
    let last = lines.len().checked_sub(wanted.len())?;
    let fits = |start: usize| {
        (done..=last).contains(&start) && lines[start..start + wanted.len()] == **wanted
    };
    if wanted.is_empty() || (before == 0 && behind == 0) {
        return fits(expected).then_some(expected);
    }
    if side.start == 0 || behind == 0 {
        let only = if side.start == 0 { 0 } else { last };
        return fits(only).then_some(only);
    }
    nearest(expected, done, last, &fits)
}

fn nearest(
    expected: usize,
    done: usize,
    last: usize,
    fits: &dyn Fn(usize) -> bool,
) -> Option<usize> {
    if fits(expected) {
        return Some(expected);
    }
    let distances = 1..=DISTANCE_MAX.min(lines_between(expected, done, last));
    distances
        .flat_map(|distance| {
            [
                expected.checked_add(distance),
                expected.checked_sub(distance),
            ]
        })
        .flatten()
        .find(|start| fits(*start))
}

/// No place is further away than this.
fn lines_between(expected: usize, done: usize, last: usize) -> usize {
    expected.abs_diff(done).max(expected.abs_diff(last))
}

fn shifted(line: usize, drift: i64) -> usize {
    usize::try_from(signed(line).saturating_add(drift)).unwrap_or(0)
}

/// Lines of a file in memory; there are never so many that one does not fit.
fn signed(line: usize) -> i64 {
    i64::try_from(line).unwrap_or(i64::MAX)
}

fn first_difference(
    lines: &[&[u8]],
    wanted: &[&[u8]],
    start: usize,
) -> Option<(usize, Vec<u8>, Option<Vec<u8>>)> {
    let differs = |(offset, wanted): &(usize, &&[u8])| {
        lines.get(start.saturating_add(*offset)) != Some(*wanted)
    };
    let (offset, wanted) = wanted.iter().enumerate().find(differs)?;
    let line = start.saturating_add(offset);
    let found = lines.get(line).map(|line| line.to_vec());
    Some((line + 1, wanted.to_vec(), found))
}
