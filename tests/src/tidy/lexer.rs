//! Enough of Rust's grammar to tell code from comments and strings, and test code from the rest.
//!
//! Invariants: masking keeps every line where it is; tokens carry the line that they stand on. A
//! text that is not Rust gives strange tokens and never a panic.

/// A word or a sign of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier, a number, `::`, or one other character.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
    /// Whether it stands in an item that only tests build.
    pub in_test: bool,
}

/// A Rust file, taken apart.
pub struct Source {
    /// Relative to the root of the repository.
    pub path: String,
    /// The lines as they are written.
    pub lines: Vec<String>,
    /// The code without comments and without what is in quotes.
    pub tokens: Vec<Token>,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: &str, text: &str) -> Self {
        let mut tokens = tokenize(&mask(text));
        for range in test_ranges(&tokens) {
            for token in &mut tokens[range] {
                token.in_test = true;
            }
        }
        let lines = text.lines().map(str::to_owned).collect();
        let mut source = Self { path: path.to_owned(), lines, tokens };
        if is_test_path(path) {
            source.set_test();
        }
        source
    }

    /// The files of the modules that this one declares for tests only (`#[cfg(test)] mod a;`).
    pub fn test_modules(&self) -> Vec<String> {
        let folder = match self.path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declares = |at: &usize| {
            self.tokens[*at].in_test && self.text(*at) == "mod" && self.text(*at + 2) == ";"
        };
        let names = (0..self.tokens.len()).filter(declares).map(|at| self.text(at + 1));
        names.flat_map(|n| [format!("{folder}/{n}.rs"), format!("{folder}/{n}/")]).collect()
    }

    /// Marks the whole file as one for tests only.
    pub fn set_test(&mut self) {
        for token in &mut self.tokens {
            token.in_test = true;
        }
    }

    /// The text of a token; empty beyond the end.
    pub fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    /// Whether tokens from `at` on are these.
    pub fn starts_with(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(n, text)| self.text(at + n) == *text)
    }

    /// Whether the comment right above a line gives this excuse, and a reason behind it.
    pub fn excused(&self, line: usize, excuse: &str) -> bool {
        let above = self.lines[..line.saturating_sub(1)].iter().rev();
        above.map(|text| text.trim()).take_while(|text| text.starts_with("//")).any(|text| {
            let comment = text.trim_start_matches('/').trim();
            comment.strip_prefix(excuse).is_some_and(|reason| reason.trim().len() >= 10)
        })
    }
}

/// Whether a file is built for tests only, by where it lies.
fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "benches")
}

/// The position of the token that closes what the token at `open` opens.
pub fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Items behind a `#[cfg(…test…)]`.
fn test_ranges(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let opens = text(at) == "#" && text(at + 1) == "[" && text(at + 2) == "cfg";
        let Some(end) = opens.then(|| closing(tokens, at + 1)).flatten() else {
            at += 1;
            continue;
        };
        let says_test = tokens[at + 3..end].iter().any(|token| token.text == "test");
        let negated =
            tokens[at + 3..end].iter().any(|token| token.text == "not") && text(at + 4) == "not";
        if !says_test || negated {
            at = end + 1;
            continue;
        }
        let last = item_end(tokens, end + 1);
        ranges.push(at..last + 1);
        at = last + 1;
    }
    ranges
}

/// The last token of the item that starts at `at`: its `;` or the brace that closes its body.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut here = at;
    while here < tokens.len() {
        match tokens[here].text.as_str() {
            ";" => return here,
            "{" => return closing(tokens, here).unwrap_or(tokens.len() - 1),
            "(" | "[" => here = closing(tokens, here).unwrap_or(tokens.len() - 1),
            _ => {}
        }
        here += 1;
    }
    tokens.len().saturating_sub(1)
}

fn tokenize(masked: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = masked;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if first == '\n' {
            line += 1;
        } else if !first.is_whitespace() {
            tokens.push(Token { text: rest[..len].to_owned(), line, in_test: false });
        }
        rest = &rest[len..];
    }
    tokens
}

/// Replaces comments and what is in quotes by blanks; line breaks stay.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let (len, keep) = piece(rest, previous);
        let (piece, behind) = rest.split_at(len);
        if keep {
            masked.push_str(piece);
        } else {
            masked.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        previous = first;
        rest = behind;
    }
    masked
}

/// The next piece of a text in bytes, and whether it is code.
fn piece(rest: &str, previous: char) -> (usize, bool) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"'), false);
    }
    let starts_word = !(previous.is_alphanumeric() || previous == '_');
    if starts_word && let Some(len) = raw_string(rest) {
        return (len, false);
    }
    if rest.starts_with('\'') {
        let mut chars = rest.chars().skip(1);
        let (second, third) = (chars.next(), chars.next());
        // `'a` is a lifetime, `'a'` and `'\n'` are characters.
        if second == Some('\\') || third == Some('\'') {
            return (quoted(rest, '\''), false);
        }
    }
    (first, true)
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a raw string that starts here: `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let body = ["br", "cr", "r"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len() + hashes + 1;
    Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let source = Source::new("cluster/x/src/lib.rs", text);
        source.tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(words(r#"a("b \" c", 'd', '\'', b"e") f"#), "a ( , , , b ) f");
        assert_eq!(words("r#\"a \" b\"# c br\"d\" for_r e"), "c for_r e");
        assert_eq!(words("fn a<'b>(c: &'b str)"), "fn a < ' b > ( c : & ' b str )");
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = Source::new("a.rs", "/* 1\n2 */\n\"3\n4\" five");
        assert_eq!((source.text(0), source.tokens[0].line), ("five", 4));
    }

    #[test]
    fn test_items_are_told_from_the_rest() {
        let text = "a(); #[cfg(test)] mod tests { b(); } c(); #[cfg(all(test, x))] use d; e();
                    #[cfg(not(test))] fn f() {}";
        let source = Source::new("cluster/x/src/lib.rs", text);
        let test: Vec<&str> = source
            .tokens
            .iter()
            .filter(|token| token.in_test && token.text.len() == 1)
            .map(|token| token.text.as_str())
            .filter(|text| text.chars().all(char::is_alphabetic))
            .collect();
        assert_eq!(test, ["b", "x", "d"]);
        let source = Source::new("cluster/x/src/log/tests.rs", "a");
        assert!(source.tokens[0].in_test);
    }

    #[test]
    fn modules_for_tests_are_found() {
        let text = "#[cfg(all(test, x))] mod a; mod b; #[cfg(test)] mod c { mod d; }";
        let modules = |path| Source::new(path, text).test_modules();
        assert_eq!(modules("x/src/lib.rs")[..2], ["x/src/a.rs", "x/src/a/"]);
        assert_eq!(modules("x/src/y.rs")[0], "x/src/y/a.rs");
        assert_eq!(modules("x/src/lib.rs").len(), 4);
    }
}
