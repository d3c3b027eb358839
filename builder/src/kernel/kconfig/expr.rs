//! Conditions: their form, and how they are written out again.

use std::fmt;

use super::lexer::Token;
use super::limits::EXPRESSION_DEPTH_MAX;
use super::text::plain;

/// A symbol by its number; numbers are given in the order in which names are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SymbolId(pub(super) u32);

/// What is compared, or stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A name or a number: an undefined symbol's value is its name.
    Symbol(SymbolId),
    /// Text in quotes.
    Text(Box<str>),
    /// What only a command would tell; as written.
    Unknown(Box<str>),
}

/// A comparison of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::Unequal => "!=",
            Comparison::Less => "<",
            Comparison::LessEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterEqual => ">=",
        }
    }

    fn of(sign: &str) -> Option<Comparison> {
        [
            Comparison::Equal,
            Comparison::Unequal,
            Comparison::Less,
            Comparison::LessEqual,
            Comparison::Greater,
            Comparison::GreaterEqual,
        ]
        .into_iter()
        .find(|comparison| comparison.sign() == sign)
    }
}

/// A condition. It nests no deeper than [`EXPRESSION_DEPTH_MAX`] and a little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    Value(Operand),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Compare(Operand, Comparison, Operand),
    /// Holds where the condition is n: the other half of `depends on A if B`.
    Off(Box<Expr>),
}

/// The names of symbols.
pub(super) trait Names {
    fn name(&self, symbol: SymbolId) -> &str;
}

/// An expression or operand together with the names that its symbols have.
pub(super) struct Written<'a, T> {
    pub(super) part: &'a T,
    pub(super) names: &'a dyn Names,
}

/// The longest condition that a sentence shows, in bytes.
const SHOWN_MAX: usize = 160;

/// Takes text up to a limit.
struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = plain(text);
        let room = SHOWN_MAX.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(&text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end));
        self.0.push_str(&text[..end.unwrap_or(0)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

impl<T> Written<'_, T>
where
    Self: fmt::Display,
{
    /// For a sentence, which a condition of a hundred symbols would burst.
    pub(super) fn shortened(&self) -> String {
        let mut text = Limited(String::new());
        // It fails where it is cut.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{self}"));
        text.0
    }
}

impl fmt::Display for Written<'_, Operand> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Operand::Symbol(symbol) => f.write_str(self.names.name(*symbol)),
            Operand::Text(text) => write!(f, "\"{text}\""),
            Operand::Unknown(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Written<'_, Expr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operand = |part| Written {
            part,
            names: self.names,
        };
        match self.part {
            Expr::Value(value) => operand(value).fmt(f),
            Expr::Compare(left, how, right) => {
                write!(f, "{} {} {}", operand(left), how.sign(), operand(right))
            }
            Expr::Not(inner) => {
                f.write_str("!")?;
                self.inner(inner, f)
            }
            Expr::Off(inner) => {
                self.inner(inner, f)?;
                f.write_str(" = n")
            }
            Expr::All(parts) => self.joined(parts, " && ", f),
            Expr::Any(parts) => self.joined(parts, " || ", f),
        }
    }
}

impl Written<'_, Expr> {
    fn joined(&self, parts: &[Expr], sign: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                f.write_str(sign)?;
            }
            self.inner(part, f)?;
        }
        Ok(())
    }

    /// A part, in parentheses where it has parts itself.
    fn inner(&self, part: &Expr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written {
            part,
            names: self.names,
        };
        match part {
            Expr::All(_) | Expr::Any(_) | Expr::Off(_) => write!(f, "({written})"),
            _ => write!(f, "{written}"),
        }
    }
}

/// Reads conditions out of a statement's tokens.
pub(super) struct ExprParser<'a, 't> {
    pub(super) tokens: &'a [Token<'t>],
    pub(super) intern: &'a mut dyn FnMut(&str) -> SymbolId,
}

impl ExprParser<'_, '_> {
    fn operator(&mut self, sign: &str) -> bool {
        match self.tokens.split_first() {
            Some((Token::Operator(found), rest)) if *found == sign => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    /// The next token, if it is the word.
    pub(super) fn keyword(&mut self, word: &str) -> bool {
        match self.tokens.split_first() {
            Some((Token::Word(found), rest)) if found == word => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    /// A condition; `None` where there is none or it is not understood.
    pub(super) fn expr(&mut self) -> Option<Expr> {
        self.any(0)
    }

    fn any(&mut self, depth: usize) -> Option<Expr> {
        let first = self.all(depth)?;
        let mut parts = vec![first];
        while self.operator("||") {
            parts.push(self.all(depth)?);
        }
        Some(one_or(parts, Expr::Any))
    }

    fn all(&mut self, depth: usize) -> Option<Expr> {
        let first = self.unary(depth)?;
        let mut parts = vec![first];
        while self.operator("&&") {
            parts.push(self.unary(depth)?);
        }
        Some(one_or(parts, Expr::All))
    }

    fn unary(&mut self, depth: usize) -> Option<Expr> {
        if depth > EXPRESSION_DEPTH_MAX {
            return None;
        }
        if self.operator("!") {
            return Some(Expr::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.operator("(") {
            let inner = self.any(depth + 1)?;
            return self.operator(")").then_some(inner);
        }
        let left = self.operand()?;
        let comparison = match self.tokens.first() {
            Some(Token::Operator(sign)) => Comparison::of(sign),
            _ => None,
        };
        let Some(comparison) = comparison else {
            return Some(Expr::Value(left));
        };
        self.tokens = self.tokens.get(1..)?;
        Some(Expr::Compare(left, comparison, self.operand()?))
    }

    /// A symbol, number, text or unknown.
    pub(super) fn operand(&mut self) -> Option<Operand> {
        let (first, rest) = self.tokens.split_first()?;
        let operand = match first {
            Token::Word(word) => Operand::Symbol((self.intern)(word)),
            Token::Quoted(text) => Operand::Text(text.as_ref().into()),
            Token::Unknown(text) => Operand::Unknown((*text).into()),
            Token::Operator(_) => return None,
        };
        self.tokens = rest;
        Some(operand)
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            many(parts)
        }
    }
}
