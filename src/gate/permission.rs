//! What a request needs: permissions joined by `AND` and `OR`, such as `invoices:read AND (invoices:export OR admin)`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::quote::quotable;

/// A boolean expression over permissions. `AND` binds more tightly than `OR`.
#[derive(Clone, PartialEq, Eq)]
pub struct Expression {
    text: Box<str>,
    root: Node,
}

#[derive(Clone, PartialEq, Eq)]
enum Node {
    /// Where a name stands in the text.
    Name(Range<usize>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

/// A text that is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Nothing is asked for.
    #[error("permissions are empty: leave them out where none are needed")]
    Empty,
    /// Too long to be meant.
    #[error("permissions have more than {} characters", Expression::MAX_LEN)]
    TooLong,
    /// Too deep to be meant.
    #[error(
        "permissions have parentheses more than {} deep",
        Expression::MAX_DEPTH
    )]
    TooDeep,
    /// A character that no permission has.
    #[error(
        "permissions have an unexpected {found:?} at character {at}: write names such as invoices:read, AND, OR and parentheses"
    )]
    Unexpected {
        /// The character, or word.
        found: String,
        /// Where it stands, from 1.
        at: usize,
    },
    /// It ends too early.
    #[error("permissions end where a name or a closing parenthesis is missing")]
    Incomplete,
}

impl Expression {
    /// The longest expression, in bytes.
    pub const MAX_LEN: usize = 1_000;
    /// How deep parentheses may stand in one another.
    pub const MAX_DEPTH: usize = 16;

    /// Whether it holds for a holder of these permissions.
    pub fn holds(&self, has: impl Fn(&str) -> bool) -> bool {
        self.root
            .holds(&|name| self.text.get(name).is_some_and(&has))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The permissions in it, in their order, each as often as it stands there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        tokens(&self.text).filter_map(|(_, token)| match token {
            Token::Word(word) if !is_operator(word) => Some(word),
            _ => None,
        })
    }
}

impl Node {
    fn holds(&self, has: &impl Fn(Range<usize>) -> bool) -> bool {
        match self {
            Self::Name(name) => has(name.clone()),
            Self::All(parts) => parts.iter().all(|part| part.holds(has)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(has)),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > Self::MAX_LEN {
            return Err(ExpressionError::TooLong);
        }
        if text.trim().is_empty() {
            return Err(ExpressionError::Empty);
        }
        let mut parser = Parser {
            tokens: tokens(text).peekable(),
        };
        let root = parser.any(0)?;
        match parser.tokens.next() {
            None => Ok(Self {
                text: text.into(),
                root,
            }),
            Some((at, token)) => Err(token.unexpected(at)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    Word(&'a str),
    Other(char),
}

impl Token<'_> {
    fn unexpected(self, at: usize) -> ExpressionError {
        let found = match self {
            Self::Open => "(".to_owned(),
            Self::Close => ")".to_owned(),
            Self::Word(word) if is_operator(word) => word.to_owned(),
            // It may be a key that was put in the wrong place, and the log tells what is wrong.
            Self::Word(word) => quotable(word).to_owned(),
            Self::Other(other) => other.to_string(),
        };
        ExpressionError::Unexpected { found, at: at + 1 }
    }
}

fn is_operator(word: &str) -> bool {
    word == "AND" || word == "OR"
}

/// The characters of a permission's name, as the definition of `ApiKey` has them.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '_' | '/')
}

fn tokens(text: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let blank = rest.len() - rest.trim_start().len();
        let rest = rest.get(blank..)?;
        let start = at + blank;
        let first = rest.chars().next()?;
        let (length, token) = match first {
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            c if c.is_ascii_alphanumeric() => {
                let word = rest
                    .find(|c| !is_of_name(c))
                    .and_then(|end| rest.get(..end))
                    .unwrap_or(rest);
                (word.len(), Token::Word(word))
            }
            other => (other.len_utf8(), Token::Other(other)),
        };
        at = start + length;
        Some((start, token))
    })
}

struct Parser<'a, I: Iterator<Item = (usize, Token<'a>)>> {
    tokens: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = (usize, Token<'a>)>> Parser<'a, I> {
    fn any(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let first = self.all(depth)?;
        let mut others = Vec::new();
        while self.take("OR") {
            others.push(self.all(depth)?);
        }
        Ok(joined(first, others, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let first = self.one(depth)?;
        let mut others = Vec::new();
        while self.take("AND") {
            others.push(self.one(depth)?);
        }
        Ok(joined(first, others, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        match self.tokens.next() {
            None => Err(ExpressionError::Incomplete),
            Some((at, Token::Word(word))) if !is_operator(word) => {
                Ok(Node::Name(at..at + word.len()))
            }
            Some((_, Token::Open)) if depth >= Expression::MAX_DEPTH => {
                Err(ExpressionError::TooDeep)
            }
            Some((_, Token::Open)) => {
                let inner = self.any(depth + 1)?;
                match self.tokens.next() {
                    Some((_, Token::Close)) => Ok(inner),
                    Some((at, token)) => Err(token.unexpected(at)),
                    None => Err(ExpressionError::Incomplete),
                }
            }
            Some((at, token)) => Err(token.unexpected(at)),
        }
    }

    fn take(&mut self, operator: &str) -> bool {
        self.tokens
            .next_if(|(_, token)| *token == Token::Word(operator))
            .is_some()
    }
}

/// Most expressions are a single name, for which no list is made.
fn joined(first: Node, mut others: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Node {
    if others.is_empty() {
        return first;
    }
    others.insert(0, first);
    join(others)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, has: &[&str]) -> bool {
        text.parse::<Expression>()
            .unwrap()
            .holds(|name| has.contains(&name))
    }

    #[test]
    fn permissions_are_joined_as_people_read_them() {
        for (text, has, expected) in [
            ("a", vec!["a"], true),
            ("a", vec![], false),
            ("a AND b", vec!["a"], false),
            ("a AND b", vec!["b", "a"], true),
            ("a OR b", vec!["b"], true),
            ("a OR b AND c", vec!["a"], true),
            ("a OR b AND c", vec!["b"], false),
            ("(a OR b) AND c", vec!["a"], false),
            ("(a OR b) AND c", vec!["b", "c"], true),
            ("a AND (b OR c)", vec!["a", "c"], true),
            ("a AND (b OR c)", vec!["b", "c"], false),
            ("((invoices:read))", vec!["invoices:read"], true),
            ("ANDROID", vec!["ANDROID"], true),
            ("invoices:read", vec!["invoices"], false),
        ] {
            assert_eq!(holds(text, &has), expected, "{text} for {has:?}");
        }
    }

    #[test]
    fn what_is_not_an_expression_is_refused_with_the_place() {
        let deep = format!("{}a{}", "(".repeat(17), ")".repeat(17));
        for (text, expected) in [
            ("", ExpressionError::Empty),
            ("  ", ExpressionError::Empty),
            ("a AND", ExpressionError::Incomplete),
            ("(a", ExpressionError::Incomplete),
            (
                "a b",
                ExpressionError::Unexpected {
                    found: "b".to_owned(),
                    at: 3,
                },
            ),
            // A word in small letters is a permission, not an operator: two names in a row.
            (
                "a and b",
                ExpressionError::Unexpected {
                    found: "and".to_owned(),
                    at: 3,
                },
            ),
            (
                "AND a",
                ExpressionError::Unexpected {
                    found: "AND".to_owned(),
                    at: 1,
                },
            ),
            (
                "a clv_4fGh7TzQ0bWm",
                ExpressionError::Unexpected {
                    found: "...".to_owned(),
                    at: 3,
                },
            ),
            (
                "a)",
                ExpressionError::Unexpected {
                    found: ")".to_owned(),
                    at: 2,
                },
            ),
            (
                "a & b",
                ExpressionError::Unexpected {
                    found: "&".to_owned(),
                    at: 3,
                },
            ),
            (
                "ä",
                ExpressionError::Unexpected {
                    found: "ä".to_owned(),
                    at: 1,
                },
            ),
            (
                ":a",
                ExpressionError::Unexpected {
                    found: ":".to_owned(),
                    at: 1,
                },
            ),
            (deep.as_str(), ExpressionError::TooDeep),
            ("a".repeat(1_001).as_str(), ExpressionError::TooLong),
        ] {
            assert_eq!(text.parse::<Expression>().unwrap_err(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_can_break_the_parser(text in ".{0,300}|[a( )ANDOR]{0,300}") {
            if let Ok(expression) = text.parse::<Expression>() {
                prop_assert!(expression.names().count() > 0);
                prop_assert!(expression.holds(|_| true), "who may do everything may do this: {text}");
                prop_assert!(!expression.holds(|_| false), "who may do nothing may not: {text}");
            }
        }
    }
}
