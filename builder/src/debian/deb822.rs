//! Control stanzas: `Name: value` lines, values continued on lines that begin with a space or tab,
//! stanzas separated by empty lines (deb822(5), Debian policy 5.1). Nothing is copied.

/// The most fields that one stanza may have.
const FIELDS_MAX: usize = 1024;

/// Text that is no control stanza: the archive's or the file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Deb822Error {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One field as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without the colon.
    pub name: &'a str,
    /// The value: trimmed, with the line ends and indents of its continuation lines.
    pub value: &'a str,
}

/// The fields between two empty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza<'a> {
    /// In the order in which they were written.
    pub fields: Vec<Field<'a>>,
    /// The stanza's text.
    pub text: &'a str,
}

impl<'a> Stanza<'a> {
    /// The value of a field; names are the same in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let field = self
            .fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value)
    }
}

/// Goes through the stanzas of a text; stops after the first error.
#[derive(Clone, Debug)]
pub struct Stanzas<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl<'a> Stanzas<'a> {
    /// Starts at the beginning of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            position: 0,
            line: 0,
        }
    }

    fn next_line(&mut self) -> Option<&'a str> {
        let rest = self
            .text
            .get(self.position..)
            .filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').unwrap_or(rest.len());
        self.position += (length + 1).min(rest.len());
        self.line += 1;
        Some(&rest[..length])
    }

    fn continues(&self) -> bool {
        let next = self.text.as_bytes().get(self.position);
        let is_more = matches!(next, Some(b' ' | b'\t'));
        is_more
            && !self.text[self.position..]
                .split('\n')
                .next()
                .is_none_or(is_blank)
    }

    fn field(&mut self, line: &'a str, line_start: usize) -> Result<Field<'a>, &'static str> {
        let colon = line.find(':').ok_or("a field without a colon")?;
        let name = &line[..colon];
        if !is_field_name(name) {
            return Err("an invalid field name");
        }
        while self.continues() {
            self.next_line();
        }
        Ok(Field {
            name,
            value: self.text[line_start + colon + 1..self.position].trim(),
        })
    }

    fn stanza(&mut self) -> Result<Option<Stanza<'a>>, Deb822Error> {
        let mut stanza = Stanza::default();
        let mut start = 0;
        loop {
            let line_start = self.position;
            let Some(line) = self.next_line() else {
                break;
            };
            if line.starts_with('#') || (is_blank(line) && stanza.fields.is_empty()) {
                continue;
            }
            if is_blank(line) {
                break;
            }
            let line_number = self.line;
            let error = |problem| Deb822Error {
                line: line_number,
                problem,
            };
            if stanza.fields.len() >= FIELDS_MAX {
                return Err(error("too many fields in one stanza"));
            }
            let field = self.field(line, line_start).map_err(error)?;
            if stanza.fields.is_empty() {
                start = line_start;
            }
            stanza.fields.push(field);
            stanza.text = &self.text[start..self.position];
        }
        Ok((!stanza.fields.is_empty()).then_some(stanza))
    }
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, Deb822Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let stanza = self.stanza().transpose();
        if matches!(stanza, Some(Err(_))) {
            self.position = self.text.len();
        }
        stanza
    }
}

fn is_blank(line: &str) -> bool {
    line.bytes()
        .all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

fn is_field_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_stanzas_are_told_apart() {
        let text = "# a comment\n\nPackage: a\nDescription: short\n long\n .\n more\n\n\n\
                    Package:b\nEmpty:\n";
        let stanzas: Vec<_> = Stanzas::new(text).map(Result::unwrap).collect();
        assert_eq!(stanzas.len(), 2);
        assert_eq!(
            stanzas[0].get("description"),
            Some("short\n long\n .\n more")
        );
        assert_eq!(stanzas[1].get("Package"), Some("b"));
        assert_eq!(stanzas[1].get("Empty"), Some(""));
        assert_eq!(stanzas[1].get("Nothing"), None);
        assert_eq!(stanzas[1].text, "Package:b\nEmpty:\n");
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Stanzas::new("A: b\n\nC: d\nno field\n")
            .nth(1)
            .unwrap()
            .unwrap_err();
        assert_eq!(error.to_string(), "line 4: a field without a colon");
        assert!(Stanzas::new(" leading\n").next().unwrap().is_err());
    }

    #[test]
    fn any_mutation_ends() {
        let text = "A: b\n c\n\nB: é\n d\n";
        for index in 0..text.len() {
            for byte in [b'\n', b' ', b':', b'x', 0] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[index] = byte;
                let text = String::from_utf8_lossy(&bytes);
                assert!(Stanzas::new(&text).count() <= 4);
            }
        }
    }
}
