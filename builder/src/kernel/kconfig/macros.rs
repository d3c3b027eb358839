//! The macro language of Kconfig (`Documentation/kbuild/kconfig-macro-language.rst`).
//!
//! Nothing is executed: what a command would have printed is [`UNKNOWN`], one character that no
//! name and no number contains, so that it is still seen after it went through other macros.

use std::collections::BTreeMap;

use super::KconfigError;
use super::limits::{ARGUMENTS_MAX, EXPANSION_BYTES_MAX, MACRO_DEPTH_MAX, MACRO_WORK_MAX};

/// Stands for text that only a command or the host could tell.
pub(super) const UNKNOWN: char = '\0';

/// What a reference counts beside its bytes.
const REFERENCE_WORK: usize = 16;

/// When a variable's value is expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// `=`: with each use.
    Recursive,
    /// `:=`: where it is assigned.
    Simple,
    /// `+=`: as the variable was first assigned.
    Append,
}

#[derive(Clone, Debug)]
struct Variable {
    value: String,
    is_simple: bool,
    uses: usize,
}

/// Where a macro is used: for `$(filename)`, `$(lineno)` and errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) file: &'a str,
    pub(super) line: u32,
}

impl Spot<'_> {
    fn error(self, problem: impl Into<String>) -> KconfigError {
        KconfigError::Invalid {
            place: format!("{}:{}", self.file, self.line),
            problem: problem.into(),
        }
    }
}

/// Variables, functions and the part of the environment that is known.
#[derive(Debug)]
pub(super) struct Macros {
    variables: BTreeMap<String, Variable>,
    environment: BTreeMap<&'static str, &'static str>,
    work: usize,
}

impl Macros {
    pub(super) fn new(environment: &[(&'static str, &'static str)]) -> Macros {
        Macros {
            variables: BTreeMap::new(),
            environment: environment.iter().copied().collect(),
            work: 0,
        }
    }

    /// Carries out an assignment.
    pub(super) fn assign(
        &mut self,
        name: &str,
        how: Assignment,
        value: &str,
        spot: Spot<'_>,
    ) -> Result<(), KconfigError> {
        let old = self.variables.get(name);
        let is_simple = match how {
            Assignment::Simple => true,
            Assignment::Recursive => false,
            Assignment::Append => old.is_some_and(|old| old.is_simple),
        };
        let prefix = match old {
            Some(old) if how == Assignment::Append => format!("{} ", old.value),
            _ => String::new(),
        };
        let value = if is_simple {
            self.text(value, &[], 0, spot)?
        } else {
            value.to_owned()
        };
        let value = prefix + &value;
        self.charge(value.len(), value.len(), spot)?;
        let variable = Variable {
            value,
            is_simple,
            uses: 0,
        };
        self.variables.insert(name.to_owned(), variable);
        Ok(())
    }

    /// Expands what stands behind a `$` and moves `at` behind it.
    pub(super) fn dollar(
        &mut self,
        text: &str,
        at: &mut usize,
        spot: Spot<'_>,
    ) -> Result<String, KconfigError> {
        self.reference(text, at, &[], 0, spot)
    }

    fn charge(&mut self, work: usize, bytes: usize, spot: Spot<'_>) -> Result<(), KconfigError> {
        self.work = self.work.saturating_add(work).saturating_add(1);
        if self.work > MACRO_WORK_MAX || bytes > EXPANSION_BYTES_MAX {
            return Err(spot.error("macros grow beyond what coop expands"));
        }
        Ok(())
    }

    /// A whole text with every reference expanded.
    fn text(
        &mut self,
        text: &str,
        arguments: &[String],
        depth: usize,
        spot: Spot<'_>,
    ) -> Result<String, KconfigError> {
        let mut out = String::new();
        let mut at = 0;
        while let Some(found) = text.get(at..).and_then(|rest| rest.find('$')) {
            out.push_str(text.get(at..at + found).unwrap_or_default());
            at += found + 1;
            out.push_str(&self.reference(text, &mut at, arguments, depth, spot)?);
            self.charge(0, out.len(), spot)?;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        self.charge(out.len(), out.len(), spot)?;
        Ok(out)
    }

    fn reference(
        &mut self,
        text: &str,
        at: &mut usize,
        arguments: &[String],
        depth: usize,
        spot: Spot<'_>,
    ) -> Result<String, KconfigError> {
        let rest = text.get(*at..).unwrap_or_default();
        if !rest.starts_with('(') {
            return Ok("$".to_owned());
        }
        if depth >= MACRO_DEPTH_MAX {
            return Err(spot.error(format!(
                "macros refer to one another more than {MACRO_DEPTH_MAX} deep"
            )));
        }
        let length =
            closing(rest).ok_or_else(|| spot.error("a macro's reference lacks its \")\""))?;
        *at += length + 1;
        self.charge(length.saturating_add(REFERENCE_WORK), 0, spot)?;
        self.clause(
            rest.get(1..length).unwrap_or_default(),
            arguments,
            depth + 1,
            spot,
        )
    }

    /// `name`, `name,argument,…` or the number of an argument.
    fn clause(
        &mut self,
        clause: &str,
        arguments: &[String],
        depth: usize,
        spot: Spot<'_>,
    ) -> Result<String, KconfigError> {
        let number = clause.parse::<usize>().ok();
        if let Some(argument) = number.and_then(|n| arguments.get(n.checked_sub(1)?)) {
            return Ok(argument.clone());
        }
        let mut parts = split(clause).into_iter();
        let name = self.text(parts.next().unwrap_or_default(), arguments, depth, spot)?;
        let mut given = Vec::new();
        for part in parts {
            if given.len() == ARGUMENTS_MAX {
                return Err(spot.error(format!("a macro has more than {ARGUMENTS_MAX} arguments")));
            }
            given.push(self.text(part, arguments, depth, spot)?);
        }
        if let Some(value) = self.variable(&name, &given, depth, spot)? {
            return Ok(value);
        }
        Ok(match (name.as_str(), given.is_empty()) {
            // They say something, or stop: the kernel's own conf has done that before us.
            ("error-if" | "warning-if" | "info", false) => String::new(),
            ("filename", true) => spot.file.to_owned(),
            ("lineno", true) => spot.line.to_string(),
            ("shell", _) => UNKNOWN.to_string(),
            (name, true) if name.bytes().all(|byte| byte.is_ascii_digit()) => String::new(),
            (name, true) => match self.environment.get(name) {
                Some(value) => (*value).to_owned(),
                None => UNKNOWN.to_string(),
            },
            (name, false) if name.contains(UNKNOWN) => UNKNOWN.to_string(),
            _ => String::new(),
        })
    }

    fn variable(
        &mut self,
        name: &str,
        given: &[String],
        depth: usize,
        spot: Spot<'_>,
    ) -> Result<Option<String>, KconfigError> {
        let Some(variable) = self.variables.get_mut(name) else {
            return Ok(None);
        };
        if variable.is_simple {
            let value = variable.value.clone();
            self.charge(value.len(), 0, spot)?;
            return Ok(Some(value));
        }
        if given.is_empty() && variable.uses > 0 {
            let name = name.escape_debug();
            return Err(spot.error(format!("the variable {name} refers to itself")));
        }
        variable.uses += 1;
        let value = variable.value.clone();
        let expanded = self.text(&value, given, depth, spot)?;
        if let Some(variable) = self.variables.get_mut(name) {
            variable.uses = variable.uses.saturating_sub(1);
        }
        Ok(Some(expanded))
    }
}

/// Where the parenthesis closes that `text` begins with.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            b'\n' => return None,
            _ => {}
        }
    }
    None
}

/// The parts between the commas that no parentheses hold.
fn split(clause: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut depth = 0_i64;
    let mut start = 0;
    for (at, byte) in clause.bytes().enumerate() {
        match byte {
            b',' if depth == 0 => {
                parts.push(clause.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
    }
    parts.push(clause.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: Spot<'static> = Spot {
        file: "lib/Kconfig",
        line: 7,
    };

    fn expand(macros: &mut Macros, text: &str) -> Result<String, KconfigError> {
        macros.text(text, &[], 0, SPOT)
    }

    fn with(assignments: &[(&str, Assignment, &str)]) -> Macros {
        let mut macros = Macros::new(&[("SRCARCH", "um")]);
        for (name, how, value) in assignments {
            macros.assign(name, *how, value, SPOT).unwrap();
        }
        macros
    }

    #[test]
    fn variables_functions_and_the_environment() {
        use Assignment::{Append, Recursive, Simple};
        let mut macros = with(&[
            ("late", Recursive, "$(word)"),
            ("early", Simple, "$(word)"),
            ("word", Simple, "one"),
            ("word", Append, "two"),
            ("comma", Simple, ","),
            ("pair", Recursive, "<$(1)|$(2)>"),
            ("name", Simple, "wo"),
        ]);
        let is = |macros: &mut Macros, text: &str, wanted: &str| {
            assert_eq!(expand(macros, text).unwrap(), wanted, "{text}");
        };
        is(&mut macros, "$(late)", "one two");
        is(&mut macros, "$(early)", "\0");
        is(&mut macros, "$(pair,a,(b,c))", "<a|(b,c)>");
        is(&mut macros, "$(pair,a$(comma)b,$(word))", "<a,b|one two>");
        is(&mut macros, "$($(name)rd)", "one two");
        is(
            &mut macros,
            "arch/$(SRCARCH)/Kconfig $x",
            "arch/um/Kconfig $x",
        );
        is(&mut macros, "$(filename):$(lineno)", "lib/Kconfig:7");
        is(
            &mut macros,
            "$(warning-if,y,no)$(info,x)$(error-if,y,no)",
            "",
        );
        is(&mut macros, "$(unheard-of,x)", "");
        is(&mut macros, "$(pair,$(shell,uname),b)", "<\0|b>");
    }

    #[test]
    fn macros_that_never_end_are_refused() {
        use Assignment::Recursive;
        let says = |macros: &mut Macros, text: &str, words: &str| {
            let error = expand(macros, text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let mut macros = with(&[
            ("a", Recursive, "$(b)"),
            ("b", Recursive, "$(a)"),
            ("f", Recursive, "$(f,x)"),
            ("d0", Recursive, "$(d1)$(d1)$(d1)$(d1)$(d1)$(d1)$(d1)$(d1)"),
        ]);
        for level in 1..20 {
            let next = format!("$(d{})", level + 1).repeat(8);
            macros
                .assign(&format!("d{level}"), Recursive, &next, SPOT)
                .unwrap();
        }
        macros.assign("d20", Recursive, "", SPOT).unwrap();
        says(&mut macros, "$(a)", "refers to itself");
        says(&mut macros, "$(f,x)", "deep");
        says(&mut macros, "$(a", "lacks its \")\"");
        says(&mut macros, &"$(".repeat(1000), "lacks its \")\"");
        let nested = "$(".repeat(1000) + &")".repeat(1000);
        says(&mut macros, &nested, "deep");
        says(&mut macros, "$(d0)", "beyond");
    }
}
