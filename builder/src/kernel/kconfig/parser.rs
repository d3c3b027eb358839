//! From a tree's files to its symbols and entries.

use super::KconfigError;
use super::expr::{Expr, ExprParser, SymbolId};
use super::files::{Files, is_pattern, normal};
use super::lexer::{Lexer, Statement, Token, is_letter};
use super::limits::{BLOCK_DEPTH_MAX, PUZZLES_MAX, SOURCE_DEPTH_MAX};
use super::macros::{self, Macros};
use super::model::{
    Condition, Default, Entry, EntryId, EntryKind, FileId, Model, Prompt, Range, Select, Spot,
    SymbolType,
};
use super::text::plain;

/// Reads everything that `path` includes.
///
/// # Errors
/// A file cannot be read, leads out of the tree or is not closed, or a limit is met.
pub(super) fn parse(
    files: &mut Files,
    environment: &[(&'static str, &'static str)],
    path: &str,
) -> Result<(Model, Vec<String>), KconfigError> {
    let mut parser = Parser {
        files,
        macros: Macros::new(environment),
        model: Model::default(),
        blocks: Vec::new(),
        open: None,
        puzzles: Vec::new(),
    };
    parser.include(path, &[])?;
    parser.model.link();
    Ok((parser.model, parser.puzzles))
}

struct Parser<'f> {
    files: &'f mut Files,
    macros: Macros,
    model: Model,
    /// Menus, choices and ifs that are not closed, the innermost last.
    blocks: Vec<EntryId>,
    /// What the next lines say something about.
    open: Option<EntryId>,
    /// Lines that were not understood, and where.
    puzzles: Vec<String>,
}

impl Parser<'_> {
    /// Reads a file; `within` are those that include it.
    fn include(&mut self, path: &str, within: &[&str]) -> Result<(), KconfigError> {
        let from = within.last().copied().unwrap_or("the tree");
        if within.len() > SOURCE_DEPTH_MAX || within.contains(&path) {
            return Err(KconfigError::Invalid {
                place: from.to_owned(),
                problem: format!("includes {path}, which includes it again or is too deep"),
            });
        }
        let text = self.files.text(path)?.ok_or_else(|| KconfigError::NoFile {
            path: path.to_owned(),
            from: from.to_owned(),
        })?;
        let file = FileId(u32::try_from(self.model.files.len()).unwrap_or(u32::MAX));
        self.model.files.push(path.into());
        let outside = self.blocks.len();
        let mut within = within.to_vec();
        within.push(path);
        let mut lexer = Lexer::new(path, &text);
        while let Some(statement) = lexer.statement(&mut self.macros)? {
            match statement {
                Statement::Assignment {
                    line,
                    name,
                    how,
                    value,
                } => {
                    let spot = macros::Spot { file: path, line };
                    self.macros.assign(&name, how, value, spot)?;
                }
                Statement::Words { line, tokens } => {
                    let spot = Spot { file, line };
                    if is_word(&tokens, "help") || is_word(&tokens, "---help---") {
                        lexer.skip_help();
                    } else if let Some(pattern) = self.statement(&tokens, spot, outside)? {
                        self.source(&pattern, spot, &within)?;
                    }
                }
            }
        }
        self.open = None;
        match self.blocks.get(outside) {
            Some(block) => Err(self.unbalanced(*block, "is not closed in its file")),
            None => Ok(()),
        }
    }

    fn unbalanced(&self, block: EntryId, problem: &str) -> KconfigError {
        let entry = self.model.entry(block);
        KconfigError::Invalid {
            place: entry.map_or(String::new(), |entry| self.model.place(entry.spot)),
            problem: problem.to_owned(),
        }
    }

    fn source(&mut self, source: &Source, spot: Spot, within: &[&str]) -> Result<(), KconfigError> {
        let here = within.last().copied().unwrap_or("");
        let folder = match here.rsplit_once('/') {
            Some((folder, _)) if source.is_relative => folder,
            _ => "",
        };
        self.open = None;
        let Some(path) = normal(folder, &source.path) else {
            return Err(KconfigError::Outside(source.path.clone()));
        };
        let paths = if is_pattern(&path) {
            self.files.matching(&path)?
        } else {
            vec![path]
        };
        if paths.is_empty() && !source.is_optional {
            return Err(KconfigError::NoFile {
                path: source.path.clone(),
                from: self.model.place(spot),
            });
        }
        for path in &paths {
            match self.include(path, within) {
                Err(KconfigError::NoFile { path: missing, .. })
                    if source.is_optional && missing == *path => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// One statement; gives back what is to be included.
    fn statement(
        &mut self,
        tokens: &[Token<'_>],
        spot: Spot,
        outside: usize,
    ) -> Result<Option<Source>, KconfigError> {
        let Some(Token::Word(keyword)) = tokens.first() else {
            self.puzzle(tokens, spot)?;
            return Ok(None);
        };
        let rest = tokens.get(1..).unwrap_or_default();
        match &**keyword {
            "source" | "rsource" | "osource" | "orsource" => {
                if let [Token::Quoted(path)] = rest
                    && !path.contains(char::is_control)
                {
                    return Ok(Some(Source {
                        path: path.to_string(),
                        is_relative: keyword.trim_start_matches('o').starts_with('r'),
                        is_optional: keyword.starts_with('o'),
                    }));
                }
                self.puzzle(tokens, spot)?;
            }
            "endmenu" => self.close(EntryKind::Menu, spot, outside)?,
            "endchoice" => self.close(EntryKind::Choice, spot, outside)?,
            "endif" => self.close(EntryKind::If, spot, outside)?,
            keyword => {
                let is_understood = match self.entry(keyword, rest, spot)? {
                    Some(is_understood) => is_understood,
                    None => self.property(keyword, rest, spot).is_some(),
                };
                if !is_understood {
                    self.puzzle(tokens, spot)?;
                }
            }
        }
        Ok(None)
    }

    fn puzzle(&mut self, tokens: &[Token<'_>], spot: Spot) -> Result<(), KconfigError> {
        let place = self.model.place(spot);
        if self.puzzles.len() == PUZZLES_MAX {
            return Err(KconfigError::TooMuch {
                what: place,
                limit: format!("{PUZZLES_MAX} lines that are not understood"),
            });
        }
        let words = tokens.iter().map(|token| match token {
            Token::Word(text) => text.to_string(),
            Token::Quoted(text) => format!("\"{text}\""),
            Token::Unknown(text) => (*text).to_owned(),
            Token::Operator(sign) => (*sign).to_owned(),
        });
        let words: Vec<String> = words.collect();
        let words = words.join(" ");
        self.puzzles.push(format!("{place}: {}", plain(&words)));
        Ok(())
    }

    fn close(&mut self, kind: EntryKind, spot: Spot, outside: usize) -> Result<(), KconfigError> {
        self.open = None;
        let block = (self.blocks.len() > outside).then(|| self.blocks.pop());
        let found = block.flatten().and_then(|block| self.model.entry(block));
        if found.is_some_and(|entry| entry.kind == kind) {
            return Ok(());
        }
        Err(KconfigError::Invalid {
            place: self.model.place(spot),
            problem: "closes what its file has not opened".to_owned(),
        })
    }

    /// A statement that begins an entry: `None` if it does not, else whether it is understood.
    fn entry(
        &mut self,
        keyword: &str,
        rest: &[Token<'_>],
        spot: Spot,
    ) -> Result<Option<bool>, KconfigError> {
        let is_block = match (keyword, rest) {
            ("mainmenu", [_]) => {
                self.open = None;
                return Ok(Some(true));
            }
            ("config" | "menuconfig", [Token::Word(name)]) if name.chars().all(is_letter) => {
                let symbol = self.model.intern(name);
                self.begin(EntryKind::Symbol(symbol), spot);
                false
            }
            ("comment", [Token::Quoted(_) | Token::Unknown(_)]) => {
                self.begin(EntryKind::Comment, spot);
                false
            }
            ("choice", [] | [Token::Word(_)]) => {
                self.begin(EntryKind::Choice, spot);
                true
            }
            ("menu", [Token::Quoted(_) | Token::Unknown(_)]) => {
                self.begin(EntryKind::Menu, spot);
                true
            }
            ("if", _) => {
                let mut condition = self.condition(rest, spot);
                let is_understood = condition.is_some();
                let entry = self.begin(EntryKind::If, spot);
                if let Some(entry) = self.model.entry_mut(entry) {
                    entry.depends.extend(condition.take());
                }
                self.block(entry)?;
                self.open = None;
                return Ok(Some(is_understood));
            }
            ("config" | "menuconfig" | "comment" | "choice" | "menu" | "mainmenu", _) => {
                self.open = None;
                return Ok(Some(false));
            }
            _ => return Ok(None),
        };
        if is_block && let Some(open) = self.open {
            self.block(open)?;
        }
        Ok(Some(true))
    }

    fn begin(&mut self, kind: EntryKind, spot: Spot) -> EntryId {
        let parent = self.blocks.last().copied();
        let entry = self.model.push(Entry::new(kind, spot, parent));
        self.open = Some(entry);
        entry
    }

    fn block(&mut self, entry: EntryId) -> Result<(), KconfigError> {
        if self.blocks.len() == BLOCK_DEPTH_MAX {
            return Err(self.unbalanced(
                entry,
                &format!("has more than {BLOCK_DEPTH_MAX} menus, choices and ifs around it"),
            ));
        }
        self.blocks.push(entry);
        Ok(())
    }

    fn condition(&mut self, tokens: &[Token<'_>], spot: Spot) -> Option<Condition> {
        let mut intern = |name: &str| self.model.intern(name);
        let mut parser = ExprParser {
            tokens,
            intern: &mut intern,
        };
        let expr = parser.expr()?;
        parser.tokens.is_empty().then_some(Condition { expr, spot })
    }

    /// A line about the open entry; `None` if it is not understood.
    fn property(&mut self, keyword: &str, rest: &[Token<'_>], spot: Spot) -> Option<()> {
        let entry = self.open?;
        let symbol = match self.model.entry(entry)?.kind {
            EntryKind::Symbol(symbol) => Some(symbol),
            _ => None,
        };
        let property = self.read_property(keyword, rest, spot)?;
        let found = self.model.entry_mut(entry)?;
        match property {
            Property::Type(kind, prompt) => {
                found.prompts.extend(prompt);
                self.set_type(symbol, kind);
            }
            Property::Prompt(prompt) => found.prompts.push(prompt),
            Property::Default(kind, default) => {
                found.defaults.push(default);
                if let Some(kind) = kind {
                    self.set_type(symbol, kind);
                }
            }
            Property::Depends(condition) => found.depends.push(condition),
            Property::VisibleIf(condition) => found.visible_if.push(condition),
            Property::Select(select) => found.selects.push(select),
            Property::Imply(select) => found.implies.push(select),
            Property::Range(range) => found.ranges.push(range),
            Property::Modules => self.model.modules = symbol,
            Property::Transitional => self.model.symbol_mut(symbol?)?.is_transitional = true,
            Property::Nothing => {}
        }
        Some(())
    }

    /// The first type holds, as with the kernel.
    fn set_type(&mut self, symbol: Option<SymbolId>, kind: SymbolType) {
        if let Some(symbol) = symbol.and_then(|symbol| self.model.symbol_mut(symbol)) {
            symbol.kind = symbol.kind.or(Some(kind));
        }
    }

    fn read_property(&mut self, keyword: &str, rest: &[Token<'_>], spot: Spot) -> Option<Property> {
        let mut intern = |name: &str| self.model.intern(name);
        let mut parser = ExprParser {
            tokens: rest,
            intern: &mut intern,
        };
        let property = match keyword {
            "bool" => typed(SymbolType::Bool, &mut parser, spot)?,
            "tristate" => typed(SymbolType::Tristate, &mut parser, spot)?,
            "string" => typed(SymbolType::String, &mut parser, spot)?,
            "int" => typed(SymbolType::Int, &mut parser, spot)?,
            "hex" => typed(SymbolType::Hex, &mut parser, spot)?,
            "prompt" => Property::Prompt(prompt(&mut parser, spot)?),
            "default" => default(None, &mut parser, spot)?,
            "def_bool" => default(Some(SymbolType::Bool), &mut parser, spot)?,
            "def_tristate" => default(Some(SymbolType::Tristate), &mut parser, spot)?,
            "depends" => depends(&mut parser, spot)?,
            "visible" => {
                let expr = if_expr(&mut parser)??;
                Property::VisibleIf(Condition { expr, spot })
            }
            "select" => Property::Select(select(&mut parser, spot)?),
            "imply" => Property::Imply(select(&mut parser, spot)?),
            "range" => Property::Range(Range {
                low: parser.operand()?,
                high: parser.operand()?,
                condition: if_expr(&mut parser)?,
                spot,
            }),
            "modules" => Property::Modules,
            "transitional" => Property::Transitional,
            "optional" => Property::Nothing,
            "option" if parser.keyword("modules") => Property::Modules,
            _ => return None,
        };
        parser.tokens.is_empty().then_some(property)
    }
}

fn is_word(tokens: &[Token<'_>], word: &str) -> bool {
    matches!(tokens, [Token::Word(found)] if found == word)
}

/// What a `source` line wants.
struct Source {
    path: String,
    is_relative: bool,
    is_optional: bool,
}

enum Property {
    Type(SymbolType, Option<Prompt>),
    Prompt(Prompt),
    Default(Option<SymbolType>, Default),
    Depends(Condition),
    VisibleIf(Condition),
    Select(Select),
    Imply(Select),
    Range(Range),
    Modules,
    Transitional,
    Nothing,
}

/// `if` and a condition; outside `None` where that is not understood, inside where there is none.
fn if_expr(parser: &mut ExprParser<'_, '_>) -> Option<Option<Expr>> {
    if parser.keyword("if") {
        return parser.expr().map(Some);
    }
    Some(None)
}

fn prompt(parser: &mut ExprParser<'_, '_>, spot: Spot) -> Option<Prompt> {
    let (first, rest) = parser.tokens.split_first()?;
    let text = match first {
        Token::Quoted(text) => text.trim(),
        Token::Unknown(text) => *text,
        Token::Word(_) | Token::Operator(_) => return None,
    };
    let text = plain(text).into();
    parser.tokens = rest;
    let condition = if_expr(parser)?.map(|expr| Condition { expr, spot });
    Some(Prompt { text, condition })
}

fn typed(kind: SymbolType, parser: &mut ExprParser<'_, '_>, spot: Spot) -> Option<Property> {
    let prompt = match parser.tokens {
        [] => None,
        _ => Some(prompt(parser, spot)?),
    };
    Some(Property::Type(kind, prompt))
}

fn default(
    kind: Option<SymbolType>,
    parser: &mut ExprParser<'_, '_>,
    spot: Spot,
) -> Option<Property> {
    let value = parser.expr()?;
    let condition = if_expr(parser)?;
    let default = Default {
        value,
        condition,
        spot,
    };
    Some(Property::Default(kind, default))
}

/// `depends on A`, and `depends on A if B`: A, or B is n.
fn depends(parser: &mut ExprParser<'_, '_>, spot: Spot) -> Option<Property> {
    if !parser.keyword("on") {
        return None;
    }
    let wanted = parser.expr()?;
    let expr = match if_expr(parser)? {
        None => wanted,
        Some(condition) => Expr::Any(vec![wanted, Expr::Off(Box::new(condition))]),
    };
    Some(Property::Depends(Condition { expr, spot }))
}

fn select(parser: &mut ExprParser<'_, '_>, spot: Spot) -> Option<Select> {
    let (first, rest) = parser.tokens.split_first()?;
    let Token::Word(name) = first else {
        return None;
    };
    let target = (parser.intern)(name);
    parser.tokens = rest;
    let condition = if_expr(parser)?;
    Some(Select {
        target,
        condition,
        spot,
    })
}
