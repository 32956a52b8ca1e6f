//! A walk over the tokens of one statement.
//!
//! Invariant: it never goes back, and every refusal says what stands there and what was expected.

use super::{Fulmar, slip};
use crate::problem::{Position, Problem};
use fulmar_types::pipeline::is_internal;
use sqlparser::ast::{DataType, Expr, Query};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

/// How deep expressions and queries may lie in each other.
const NESTING_MAX: usize = 20;

/// A place as we count.
pub fn position(location: Location) -> Position {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: number(location.line), column: number(location.column) }
}

/// A word with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The word.
    pub text: String,
    /// Where it stands.
    pub at: Position,
}

/// A walk over tokens.
#[derive(Debug)]
pub struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
    end: Location,
}

impl<'a> Cursor<'a> {
    /// Over tokens without white space, with the place behind them.
    pub fn new(tokens: &'a [TokenWithSpan], end: Location) -> Self {
        Self { tokens, at: 0, end }
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|token| &token.token)
    }

    fn location(&self) -> Location {
        self.tokens.get(self.at).map_or(self.end, |token| token.span.start)
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        position(self.location())
    }

    /// What stands there, for messages.
    pub fn found(&self) -> String {
        self.peek().map_or_else(|| "the end of the statement".to_owned(), |t| format!("`{t}`"))
    }

    /// Something else was expected here.
    pub fn refuse(&self, expected: impl std::fmt::Display) -> Problem {
        let likely = slip::likely(&self.tokens[..self.at], self.tokens.get(self.at));
        likely.unwrap_or_else(|| Problem::expected(self.position(), self.found(), expected))
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Whether an unquoted word stands here, in whatever case.
    pub fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found))
            if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
    }

    /// Steps over a word, if it stands here.
    pub fn word(&mut self, word: &str) -> bool {
        let is_there = self.at_word(word);
        self.at += usize::from(is_there);
        is_there
    }

    /// Steps over words that have to stand here.
    pub fn words(&mut self, words: &[&str]) -> Result<(), Problem> {
        for word in words {
            if !self.word(word) {
                return Err(self.refuse(word));
            }
        }
        Ok(())
    }

    /// Steps over a token, if it stands here.
    pub fn token(&mut self, token: &Token) -> bool {
        let is_there = self.peek() == Some(token);
        self.at += usize::from(is_there);
        is_there
    }

    /// Steps over a token that has to stand here.
    pub fn need(&mut self, token: &Token) -> Result<(), Problem> {
        if self.token(token) { Ok(()) } else { Err(self.refuse(format!("`{token}`"))) }
    }

    /// A name.
    pub fn name(&mut self, expected: &str) -> Result<Name, Problem> {
        let at = self.position();
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(Name { text: word.value.clone(), at })
            }
            _ => Err(self.refuse(expected)),
        }
    }

    /// The name of a topic: a name or a text.
    pub fn topic(&mut self) -> Result<Name, Problem> {
        let name = match self.peek() {
            Some(Token::SingleQuotedString(_)) => self.text("the name of a topic")?,
            _ => self.name("the name of a topic")?,
        };
        if matches!(self.peek(), Some(Token::Period | Token::Minus)) {
            return Err(self.refuse(
                "something else: a name with `.` or `-` in it stands in quotes, as in 'a.b'",
            ));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.text.is_empty() || name.text.len() > 249 || !name.text.chars().all(is_plain) {
            let expected = "the name of a topic: 1 to 249 letters, digits, `.`, `_` and `-`";
            return Err(Problem::expected(name.at, format!("`{}`", name.text), expected));
        }
        if is_internal(&name.text) || matches!(name.text.as_str(), "." | "..") {
            let expected = "a topic that a site can have and that is not its own";
            return Err(Problem::expected(name.at, format!("`{}`", name.text), expected));
        }
        Ok(name)
    }

    /// A text in single quotes.
    pub fn text(&mut self, expected: &str) -> Result<Name, Problem> {
        let at = self.position();
        match self.peek() {
            Some(Token::SingleQuotedString(text)) => {
                self.at += 1;
                Ok(Name { text: text.clone(), at })
            }
            _ => Err(self.refuse(format!("{expected}, in single quotes"))),
        }
    }

    /// A whole number that is not negative.
    pub fn number(&mut self, expected: &str) -> Result<i64, Problem> {
        match self.peek() {
            Some(Token::Number(digits, _)) => match digits.parse() {
                Ok(number) => {
                    self.at += 1;
                    Ok(number)
                }
                Err(_) => Err(self.refuse(expected)),
            },
            _ => Err(self.refuse(expected)),
        }
    }

    /// What `sqlparser` reads from here on: as far as it goes, and the place behind it.
    fn parse<T>(
        &self,
        tokens: &[TokenWithSpan],
        read: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<(T, usize), Problem> {
        let end = tokens.last().map_or(self.end, |token| token.span.end);
        let after = self.tokens.get(self.at + tokens.len()).map_or(self.end, |t| t.span.start);
        let mut given = tokens.to_vec();
        let at = if given.is_empty() { after } else { end };
        given.push(TokenWithSpan { token: Token::EOF, span: Span::new(at, at) });
        let mut parser = Parser::new(&Fulmar)
            .with_recursion_limit(NESTING_MAX)
            .with_tokens_with_locations(given);
        let value = read(&mut parser).map_err(|error| self.translate(error))?;
        let mut read = 0;
        let next = parser.peek_token();
        while tokens.get(read).is_some_and(|token| token.span.start < next.span.start) {
            read += 1;
        }
        Ok((value, if next.token == Token::EOF { tokens.len() } else { read }))
    }

    /// A data type.
    pub fn data_type(&mut self) -> Result<(DataType, Position), Problem> {
        let at = self.position();
        let (data_type, read) = self.parse(&self.tokens[self.at..], |p| p.parse_data_type())?;
        self.at += read;
        Ok((data_type, at))
    }

    /// An expression in parentheses.
    pub fn condition(&mut self) -> Result<(Expr, Position), Problem> {
        let at = self.position();
        self.need(&Token::LParen)?;
        let mut depth = 1;
        let inside = self.tokens[self.at..].iter().take_while(|token| {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth > 0
        });
        let tokens = &self.tokens[self.at..self.at + inside.count()];
        let (expr, read) = self.parse(tokens, |p| p.parse_expr())?;
        self.at += read;
        self.need(&Token::RParen)?;
        Ok((expr, at))
    }

    /// An expression, as far as it goes.
    pub fn expression(&mut self) -> Result<Expr, Problem> {
        let (expr, read) = self.parse(&self.tokens[self.at..], |p| p.parse_expr())?;
        self.at += read;
        Ok(expr)
    }

    /// A query that goes to the end of the statement.
    pub fn query(&mut self) -> Result<Query, Problem> {
        if !self.at_word("SELECT") {
            return Err(self.refuse("SELECT"));
        }
        let (query, read) = self.parse(&self.tokens[self.at..], |p| p.parse_query())?;
        self.at += read;
        self.done()?;
        Ok(*query)
    }

    /// Nothing may be left.
    pub fn done(&self) -> Result<(), Problem> {
        if self.is_done() { Ok(()) } else { Err(self.refuse("`;`, the end of the statement")) }
    }

    /// `sqlparser` writes the place into the message.
    fn translate(&self, error: ParserError) -> Problem {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                let expected = format!("at most {NESTING_MAX} levels of nesting");
                return Problem::expected(self.position(), "a deeply nested expression", expected);
            }
        };
        let parts = message.rsplit_once(" at Line: ").and_then(|(text, place)| {
            let (line, column) = place.split_once(", Column: ")?;
            Some((text, Position { line: line.parse().ok()?, column: column.parse().ok()? }))
        });
        let (text, at) = parts.unwrap_or((&message, self.position()));
        let before = self.tokens.partition_point(|token| position(token.span.start) < at);
        if let Some(likely) = slip::likely(&self.tokens[..before], self.tokens.get(before)) {
            return likely;
        }
        let found = text.strip_prefix("Expected: ").and_then(|t| t.rsplit_once(", found: "));
        match found {
            Some((expected, "EOF")) => Problem::expected(at, "the end of it", expected),
            Some((expected, found)) => Problem::expected(at, format!("`{found}`"), expected),
            None => Problem::new(at, text.trim()),
        }
    }
}
