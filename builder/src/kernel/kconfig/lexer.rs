//! Statements out of a Kconfig file's text, macros expanded.

use std::borrow::Cow;

use super::KconfigError;
use super::macros::{Assignment, Macros, Spot, UNKNOWN};

/// A word, a string or an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// A keyword, a symbol or a number.
    Word(Cow<'t, str>),
    /// Text in quotes, without them.
    Quoted(Cow<'t, str>),
    /// What a command of the tree would have said: as it is written.
    Unknown(&'t str),
    /// `||`, `&&`, `=`, `!=`, `<`, `<=`, `>`, `>=`, `!`, `(`, `)`.
    Operator(&'static str),
}

/// A line, or more where a backslash joins them.
#[derive(Debug)]
pub(super) enum Statement<'t> {
    /// What is not an assignment.
    Words {
        /// Of its first word.
        line: u32,
        /// Never empty.
        tokens: Vec<Token<'t>>,
    },
    /// Of a macro.
    Assignment {
        line: u32,
        name: Cow<'t, str>,
        how: Assignment,
        value: &'t str,
    },
}

/// Two letters before one, so that the longest is found.
const OPERATORS: [&str; 11] = ["||", "&&", "!=", "<=", ">=", "=", "<", ">", "!", "(", ")"];

/// Reads one file.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    file: &'t str,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Lexer<'t> {
        Lexer {
            text,
            at: 0,
            line: 1,
            file,
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn spot(&self) -> Spot<'t> {
        Spot {
            file: self.file,
            line: self.line,
        }
    }

    /// Up to the end of the line, which it leaves.
    fn rest_of_line(&mut self) -> &'t str {
        let rest = self.rest();
        let line = rest.find('\n').map_or(rest, |end| &rest[..end]);
        self.at += line.len();
        line
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next statement; `None` at the end.
    pub(super) fn statement(
        &mut self,
        macros: &mut Macros,
    ) -> Result<Option<Statement<'t>>, KconfigError> {
        let mut tokens = Vec::new();
        let mut line = self.line;
        loop {
            match self.peek() {
                None if tokens.is_empty() => return Ok(None),
                None => return Ok(Some(Statement::Words { line, tokens })),
                Some(b'\n') => {
                    self.at += 1;
                    self.line += 1;
                    if !tokens.is_empty() {
                        return Ok(Some(Statement::Words { line, tokens }));
                    }
                }
                Some(b'#') => {
                    self.rest_of_line();
                }
                Some(b'\\') if self.rest().starts_with("\\\n") => {
                    self.at += 2;
                    self.line += 1;
                }
                Some(_) => {
                    if tokens.is_empty() {
                        line = self.line;
                    }
                    if let [Token::Word(name)] = tokens.as_slice()
                        && let Some(how) = self.assignment()
                    {
                        let name = name.clone();
                        self.skip_blanks();
                        let value = self.rest_of_line();
                        return Ok(Some(Statement::Assignment {
                            line,
                            name,
                            how,
                            value,
                        }));
                    }
                    tokens.extend(self.token(macros)?);
                }
            }
        }
    }

    fn assignment(&mut self) -> Option<Assignment> {
        let found = [
            (":=", Assignment::Simple),
            ("+=", Assignment::Append),
            ("=", Assignment::Recursive),
        ];
        let rest = self.rest();
        let (sign, how) = found.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
        self.at += sign.len();
        Some(how)
    }

    /// A token, or nothing where blanks, a character without a meaning or an empty macro stood.
    fn token(&mut self, macros: &mut Macros) -> Result<Option<Token<'t>>, KconfigError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(None);
        };
        if let Some(operator) = OPERATORS.into_iter().find(|sign| rest.starts_with(sign)) {
            self.at += operator.len();
            return Ok(Some(Token::Operator(operator)));
        }
        match first {
            '"' | '\'' => {
                self.at += 1;
                self.quoted(first, macros).map(Some)
            }
            '$' => self.word(macros),
            _ if is_letter(first) => self.word(macros),
            _ => {
                self.at += first.len_utf8();
                Ok(None)
            }
        }
    }

    fn word(&mut self, macros: &mut Macros) -> Result<Option<Token<'t>>, KconfigError> {
        let start = self.at;
        let mut word = Cow::Borrowed("");
        loop {
            let rest = self.rest();
            let plain = rest.find(|c| !is_letter(c)).unwrap_or(rest.len());
            let (plain, behind) = rest.split_at(plain);
            if word.is_empty() {
                word = Cow::Borrowed(plain);
            } else {
                word.to_mut().push_str(plain);
            }
            self.at += plain.len();
            if !behind.starts_with('$') {
                break;
            }
            self.at += 1;
            let spot = self.spot();
            let expanded = macros.dollar(self.text, &mut self.at, spot)?;
            word.to_mut().push_str(&expanded);
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        Ok(match word {
            word if word.is_empty() => None,
            word if word.contains(UNKNOWN) => Some(Token::Unknown(written)),
            word => Some(Token::Word(word)),
        })
    }

    /// Behind the quote that opens; the line's end closes too.
    fn quoted(&mut self, quote: char, macros: &mut Macros) -> Result<Token<'t>, KconfigError> {
        let start = self.at;
        let mut text = Cow::Borrowed("");
        loop {
            let rest = self.rest();
            let is_special = |c| matches!(c, '$' | '"' | '\'' | '\\' | '\n');
            let plain = rest.find(is_special).unwrap_or(rest.len());
            let (plain, behind) = rest.split_at(plain);
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            self.at += plain.len();
            match behind.chars().next() {
                None | Some('\n') => break,
                Some('$') => {
                    self.at += 1;
                    let spot = self.spot();
                    let expanded = macros.dollar(self.text, &mut self.at, spot)?;
                    text.to_mut().push_str(&expanded);
                }
                Some('\\') => {
                    self.at += 1;
                    if let Some(c) = behind.chars().nth(1).filter(|c| *c != '\n') {
                        text.to_mut().push(c);
                        self.at += c.len_utf8();
                    }
                }
                Some(c) if c == quote => {
                    self.at += 1;
                    break;
                }
                Some(c) => {
                    text.to_mut().push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if text.contains(UNKNOWN) {
            let written = self.text.get(start..self.at).unwrap_or_default();
            return Ok(Token::Unknown(written.trim_end_matches(quote)));
        }
        Ok(Token::Quoted(text))
    }

    /// Goes behind a help text, which ends where a line is indented less than its first.
    pub(super) fn skip_help(&mut self) {
        let mut first = None;
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return;
            }
            let line = rest.find('\n').map_or(rest, |end| &rest[..end]);
            let text = line.trim_start_matches([' ', '\t']);
            if !text.is_empty() {
                let indent = indentation(&line[..line.len() - text.len()]);
                if first.is_some_and(|first: usize| indent < first.max(1)) {
                    return;
                }
                first = first.or(Some(indent));
            }
            self.at += line.len();
            if self.peek() == Some(b'\n') {
                self.at += 1;
                self.line += 1;
            }
        }
    }
}

/// As the kernel's lexer has it: letters, digits, `_` and `-`.
pub(super) fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// Columns of blanks; a tab goes to the next multiple of 8.
fn indentation(blanks: &str) -> usize {
    blanks.bytes().fold(0, |column, byte| match byte {
        b'\t' => (column & !7) + 8,
        _ => column + 1,
    })
}
