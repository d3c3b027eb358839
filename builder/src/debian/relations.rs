//! Relationship fields: `a (>= 1) | b:any, c` (Debian policy 7.1).

use std::fmt;

use crate::debian::version::Version;

/// The most bytes that one relationship field may have.
const FIELD_BYTES_MAX: usize = 1 << 18;

/// How two versions must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    const ALL: [(&'static str, Self); 7] = [
        ("<<", Self::Earlier),
        ("<=", Self::EarlierOrEqual),
        (">=", Self::LaterOrEqual),
        (">>", Self::Later),
        ("=", Self::Equal),
        // Old spellings that dpkg still takes, with "or equal" in them.
        ("<", Self::EarlierOrEqual),
        (">", Self::LaterOrEqual),
    ];

    /// Whether `left OPERATOR right` holds.
    #[must_use]
    pub fn holds(self, left: Version<'_>, right: Version<'_>) -> bool {
        let order = left.cmp(&right);
        match self {
            Self::Earlier => order.is_lt(),
            Self::EarlierOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::LaterOrEqual => order.is_ge(),
            Self::Later => order.is_gt(),
        }
    }

    fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, operator)| *operator == self);
        found.map_or("", |(text, _)| text)
    }
}

/// One alternative: `name[:qualifier] [(operator version)]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// A real or virtual package.
    pub name: &'a str,
    /// `any`, `native` or an architecture.
    pub qualifier: Option<&'a str>,
    /// Which versions will do.
    pub constraint: Option<(Operator, Version<'a>)>,
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = self.constraint {
            write!(f, " ({} {})", operator.as_str(), version.as_str())?;
        }
        Ok(())
    }
}

/// Alternatives, the preferred one first.
pub type Alternatives<'a> = Vec<Relation<'a>>;

/// Shows alternatives as they are written in a field.
#[must_use]
pub fn display(alternatives: &[Relation<'_>]) -> String {
    let words: Vec<String> = alternatives.iter().map(ToString::to_string).collect();
    words.join(" | ")
}

/// Text that is no relationship: the archive's or the recipe's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a package relationship")]
pub struct InvalidRelation(pub String);

/// Reads a relationship field.
///
/// # Errors
/// [`InvalidRelation`] with the part that is wrong.
pub fn parse(field: &str) -> Result<Vec<Alternatives<'_>>, InvalidRelation> {
    if field.len() > FIELD_BYTES_MAX {
        return Err(InvalidRelation(field.chars().take(60).collect()));
    }
    let clauses = field.split(',').filter(|clause| !clause.trim().is_empty());
    clauses
        .map(|clause| clause.split('|').map(parse_one).collect())
        .collect()
}

/// Reads one relation, as a person may write it in a recipe: `nginx-light` or `libc6 (>= 2.40)`.
///
/// # Errors
/// [`InvalidRelation`].
pub fn parse_one(text: &str) -> Result<Relation<'_>, InvalidRelation> {
    let text = text.trim();
    relation(text).ok_or_else(|| InvalidRelation(text.chars().take(100).collect()))
}

fn relation(text: &str) -> Option<Relation<'_>> {
    let end = text
        .find(|c: char| c.is_ascii_whitespace() || c == '(')
        .unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    let (name, qualifier) = match head.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (head, None),
    };
    let good_qualifier = qualifier.is_none_or(|q| !q.is_empty() && q.bytes().all(is_name_byte));
    if !is_package_name(name) || !good_qualifier {
        return None;
    }
    let tail = tail.trim();
    let constraint = if tail.is_empty() {
        None
    } else {
        Some(constraint(
            tail.strip_prefix('(')?.strip_suffix(')')?.trim(),
        )?)
    };
    Some(Relation {
        name,
        qualifier,
        constraint,
    })
}

fn constraint(text: &str) -> Option<(Operator, Version<'_>)> {
    let (operator, version) = Operator::ALL.iter().find_map(|(written, operator)| {
        let rest = text.strip_prefix(written)?;
        Some((*operator, rest.trim()))
    })?;
    is_version(version).then(|| (operator, Version::new(version)))
}

/// Whether dpkg takes it as a package's name.
#[must_use]
pub fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(is_name_byte)
}

/// Whether it is made of what a version may have in it.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte);
    !text.is_empty() && text.len() <= 300 && text.bytes().all(allowed)
}

/// Debian's archive has upper case nowhere, but dpkg takes it.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_shown() {
        let field = "libc6 (>= 2.38), debconf (>= 0.5) | debconf-2.0,perl:any,\n xx(=1:2-3~) ,";
        let shown: Vec<String> = parse(field).unwrap().iter().map(|a| display(a)).collect();
        let expected = [
            "libc6 (>= 2.38)",
            "debconf (>= 0.5) | debconf-2.0",
            "perl:any",
            "xx (= 1:2-3~)",
        ];
        assert_eq!(shown, expected);
        assert_eq!(parse("").unwrap().len(), 0);
        for bad in [
            "a",
            "-ab",
            "ab (1)",
            "ab (>= )",
            "ab (>= 1",
            "ab:",
            "ab [amd64]",
            "ab |",
            "a b c",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn operators_compare() {
        let holds = |text: &str, version| {
            let (operator, wanted) = parse_one(text).unwrap().constraint.unwrap();
            operator.holds(Version::new(version), wanted)
        };
        assert!(holds("aa (<< 2)", "1") && !holds("aa (<< 2)", "2"));
        assert!(holds("aa (<= 2)", "2") && holds("aa (= 2)", "2") && holds("aa (>= 2)", "2"));
        assert!(holds("aa (>> 2)", "3") && !holds("aa (>> 2)", "2"));
    }
}
