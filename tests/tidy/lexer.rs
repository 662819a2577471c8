//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword; a raw identifier without its `r#`.
    Word,
    /// `'name`.
    Lifetime,
    /// A string, byte string or character literal; the text is what stands between the quotes.
    Literal,
    /// A number, up to a dot.
    Number,
    /// One character of punctuation; `::` is one token.
    Mark,
    /// A line or block comment, whole.
    Comment,
}

/// A piece of source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    /// 1-based line of the token's first character.
    pub line: usize,
}

impl Token {
    /// Whether this is the word or mark `text`; a literal or comment never is.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// Cuts `text` into tokens, comments included.
pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token() {
        tokens.push(token);
    }
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn next_token(&mut self) -> Option<Token> {
        while self.peek(0)?.is_whitespace() {
            self.advance(1);
        }
        let line = self.line;
        let (kind, text) = self.scan();
        Some(Token { kind, text, line })
    }

    fn scan(&mut self) -> (Kind, String) {
        let first = self.chars[self.at];
        if self.starts_with("//") {
            return (Kind::Comment, self.take_while(|c| c != '\n'));
        }
        if self.starts_with("/*") {
            return (Kind::Comment, self.block_comment());
        }
        if let Some(literal) = self.prefixed_literal() {
            return (Kind::Literal, literal);
        }
        match first {
            '"' => {
                self.advance(1);
                (Kind::Literal, self.quoted('"'))
            }
            '\'' => self.quote(),
            _ if first.is_ascii_digit() => (Kind::Number, self.take_while(is_word)),
            _ if is_word(first) => {
                if self.starts_with("r#") {
                    self.advance(2);
                }
                (Kind::Word, self.take_while(is_word))
            }
            _ => {
                let width = if self.starts_with("::") { 2 } else { 1 };
                (Kind::Mark, self.advance(width))
            }
        }
    }

    /// `b"..."`, `c"..."`, `b'.'`, `r"..."`, `br#"..."#` and their like; nothing is taken otherwise.
    fn prefixed_literal(&mut self) -> Option<String> {
        let prefix =
            (0..2).take_while(|n| self.peek(*n).is_some_and(|c| "bcr".contains(c))).count();
        let raw = prefix > 0 && self.peek(prefix - 1) == Some('r');
        let hashes =
            if raw { (0..).take_while(|n| self.peek(prefix + n) == Some('#')).count() } else { 0 };
        match self.peek(prefix + hashes)? {
            '"' if raw => {
                self.advance(prefix + hashes + 1);
                Some(self.raw_until(&format!("\"{}", "#".repeat(hashes))))
            }
            quote @ ('"' | '\'')
                if prefix == 1 && !raw && (quote == '"' || self.peek(0) == Some('b')) =>
            {
                self.advance(2);
                Some(self.quoted(quote))
            }
            _ => None,
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) -> (Kind, String) {
        let is_char = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.advance(1);
        if is_char {
            (Kind::Literal, self.quoted('\''))
        } else {
            (Kind::Lifetime, self.take_while(is_word))
        }
    }

    /// Up to and over the closing quote; escapes are kept as written.
    fn quoted(&mut self, quote: char) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek(0) {
            if c == quote {
                self.advance(1);
                break;
            }
            text.push_str(&self.advance(if c == '\\' { 2 } else { 1 }));
        }
        text
    }

    fn raw_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while self.at < self.chars.len() && !self.starts_with(end) {
            text.push_str(&self.advance(1));
        }
        self.advance(end.len());
        text
    }

    /// Block comments nest.
    fn block_comment(&mut self) -> String {
        let mut text = self.advance(2);
        let mut depth = 1;
        while depth > 0 && self.at < self.chars.len() {
            let width = if self.starts_with("/*") {
                depth += 1;
                2
            } else if self.starts_with("*/") {
                depth -= 1;
                2
            } else {
                1
            };
            text.push_str(&self.advance(width));
        }
        text
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let count = self.chars[self.at..].iter().take_while(|c| keep(**c)).count();
        self.advance(count)
    }

    fn advance(&mut self, count: usize) -> String {
        let end = (self.at + count).min(self.chars.len());
        let taken: String = self.chars[self.at..end].iter().collect();
        self.line += taken.matches('\n').count();
        self.at = end;
        taken
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn literals_and_comments_are_no_code() {
    let source = concat!(
        "let a = \"unsafe \\\" unsafe\"; // unsafe\n",
        "let b = r#\"unsafe \" unsafe\"#; /* unsafe /* unsafe */ unsafe */\n",
        "let c: &'static u8 = &b'\\''; let d = ['\"', b\"unsafe\", br\"unsafe\\\", c\"unsafe\"];\n",
        "let break_ = 'x'; r#unsafe"
    );
    let words: Vec<(String, usize)> = lex(source)
        .into_iter()
        .filter(|token| token.is("unsafe") || token.is("let"))
        .map(|token| (token.text, token.line))
        .collect();
    let expected = [("let", 1), ("let", 2), ("let", 3), ("let", 3), ("let", 4), ("unsafe", 4)];
    assert_eq!(words, expected.map(|(word, line)| (word.to_owned(), line)));
}

#[test]
fn lifetimes_and_characters_are_told_apart() {
    let kinds: Vec<Kind> = lex("'a 'b' '\\n' 'static").iter().map(|token| token.kind).collect();
    assert_eq!(kinds, [Kind::Lifetime, Kind::Literal, Kind::Literal, Kind::Lifetime]);
}
