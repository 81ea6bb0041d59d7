//! What a route of a proxy needs, as its configuration says: in a segment of the path
//! (`audience=invoices-api&permissions=invoices:read`), or in Envoy's context extensions of the same names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::credential::{Places, PlacesError};
use super::decide::Needs;
use super::permission::{Expression, ExpressionError};
use super::quote::quotable;

/// Routes that are remembered. Whoever reaches the gate can make up more; those are read anew at each request.
const REMEMBERED: usize = 1_024;
/// How often a misconfigured route is told of, where no more are remembered.
const TELL: Duration = Duration::from_secs(10);
/// The longest settings, in bytes.
const MAX_LEN: usize = 4_096;

/// What a route needs, and where it looks for the key.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Route {
    /// The protected API.
    pub audience: Option<Box<str>>,
    /// The organization.
    pub organization: Option<Box<str>>,
    /// The permissions.
    pub permissions: Option<Expression>,
    /// Where the key may stand.
    pub places: Places,
}

/// A route that cannot be understood. Nothing passes it: what it was meant to need is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A setting that does not exist.
    #[error(
        "there is no setting {0:?}: there are audience, organization, permissions and credentials"
    )]
    Unknown(String),
    /// A setting given twice.
    #[error("the setting {0:?} is given twice")]
    Twice(String),
    /// A setting whose value cannot be meant.
    #[error("the setting {0:?} needs 1 to 253 characters")]
    Length(&'static str),
    /// The settings are too long.
    #[error("the settings have more than 4096 bytes")]
    TooLong,
    /// Not form-urlencoded.
    #[error("the settings are not UTF-8")]
    Encoding,
    /// No protected API is named.
    #[error("no audience is named: add audience, or run the gate with --routes-without-audience")]
    NoAudience,
    /// The permissions are no expression.
    #[error(transparent)]
    Permissions(#[from] ExpressionError),
    /// The places are none.
    #[error(transparent)]
    Places(#[from] PlacesError),
}

impl Route {
    /// What the decision is asked about.
    #[must_use]
    pub fn needs(&self) -> Needs<'_> {
        Needs {
            audience: self.audience.as_deref(),
            organization: self.organization.as_deref(),
            permissions: self.permissions.as_ref(),
            namespace: None,
        }
    }

    /// Reads settings.
    ///
    /// # Errors
    /// [`RouteError`] says what is wrong.
    pub fn of<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, RouteError> {
        let mut route = Self::default();
        let mut places = None;
        for (name, value) in settings {
            let new = match name {
                "audience" => route
                    .audience
                    .replace(bounded("audience", value)?.into())
                    .is_none(),
                "organization" => route
                    .organization
                    .replace(bounded("organization", value)?.into())
                    .is_none(),
                "permissions" => route.permissions.replace(value.parse()?).is_none(),
                "credentials" => places.replace(value.parse()?).is_none(),
                other => return Err(RouteError::Unknown(quotable(other).to_owned())),
            };
            if !new {
                return Err(RouteError::Twice(name.to_owned()));
            }
        }
        if let Some(places) = places {
            route.places = places;
        }
        Ok(route)
    }
}

/// The value of a setting that names one thing.
pub(super) fn bounded<'a>(name: &'static str, value: &'a str) -> Result<&'a str, RouteError> {
    if value.is_empty() || value.len() > 253 {
        Err(RouteError::Length(name))
    } else {
        Ok(value)
    }
}

/// By what a person may find the route with these settings, which may be anything: no more of them is quoted.
fn told_audience(settings: &str) -> Option<String> {
    let (_, audience) =
        form_urlencoded::parse(settings.as_bytes()).find(|(name, _)| name == "audience")?;
    Some(quotable(&audience).to_owned())
}

/// Settings as [`Routes::read`] reads them. Most need no encoding, which costs more than to look a route up.
fn written(settings: &[(&str, &str)]) -> String {
    let plain = |text: &str| {
        !text
            .bytes()
            .any(|byte| matches!(byte, b'&' | b'=' | b'%' | b'+'))
    };
    if !settings
        .iter()
        .all(|(name, value)| plain(name) && plain(value))
    {
        return form_urlencoded::Serializer::new(String::new())
            .extend_pairs(settings)
            .finish();
    }
    let mut text = String::with_capacity(
        settings
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum(),
    );
    for (number, (name, value)) in settings.iter().enumerate() {
        for part in [if number == 0 { "" } else { "&" }, name, "=", value] {
            text.push_str(part);
        }
    }
    text
}

/// Routes by their settings as text, each read once.
#[derive(Debug)]
pub struct Routes {
    known: ArcSwap<HashMap<Box<str>, Arc<Read>>>,
    /// Whether a route may name no audience.
    without_audience: bool,
    /// When a route that is misconfigured and cannot be remembered was last told.
    told: Mutex<Option<Instant>>,
}

type Read = Result<Route, RouteError>;

impl Routes {
    /// No route is known yet.
    #[must_use]
    pub fn new(without_audience: bool) -> Self {
        Self {
            known: ArcSwap::default(),
            without_audience,
            told: Mutex::default(),
        }
    }

    /// The route of these settings, which are form-urlencoded.
    pub fn read(&self, settings: &str) -> Arc<Read> {
        self.remembered(settings, || {
            let pairs: Vec<_> = form_urlencoded::parse(settings.as_bytes()).collect();
            if pairs
                .iter()
                .any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'))
            {
                return Err(RouteError::Encoding);
            }
            Route::of(pairs.iter().map(|(name, value)| (&**name, &**value)))
        })
    }

    /// The route of these settings, which stand one by one.
    pub fn of(&self, settings: &HashMap<String, String>) -> Arc<Read> {
        let mut names: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        names.sort_unstable();
        self.remembered(&written(&names), || Route::of(names.iter().copied()))
    }

    /// Checks whether an audience is named where one is needed.
    ///
    /// # Errors
    /// [`RouteError::NoAudience`] where none is.
    pub fn check(&self, audience: Option<&str>) -> Result<(), RouteError> {
        if audience.is_none() && !self.without_audience {
            Err(RouteError::NoAudience)
        } else {
            Ok(())
        }
    }

    fn remembered(&self, text: &str, read: impl FnOnce() -> Read) -> Arc<Read> {
        if text.len() > MAX_LEN {
            return Arc::new(Err(RouteError::TooLong));
        }
        let known = self.known.load();
        if let Some(route) = known.get(text) {
            return route.clone();
        }
        let route = Arc::new(
            read().and_then(|route| self.check(route.audience.as_deref()).map(|()| route)),
        );
        let room = known.len() < REMEMBERED;
        if let Err(error) = &*route
            && (room || self.may_tell())
        {
            tracing::warn!(%error, audience = told_audience(text), "a route is misconfigured: nothing passes it");
        }
        if room {
            self.known.rcu(|known| {
                let mut known = HashMap::clone(known);
                known.insert(text.into(), route.clone());
                known
            });
        }
        route
    }

    /// Tells of a route whose settings have no end. Anybody may make one up.
    pub fn has_no_end(&self, settings: &str) {
        if self.may_tell() {
            let audience = told_audience(settings);
            tracing::warn!(
                audience,
                "a proxy asks with a path that has no /- behind the settings: nothing passes there"
            );
        }
    }

    /// Logs that a proxy names no URI to a route that looks for the key in the query.
    pub fn has_no_uri(&self, settings: &str, headers: &[&str]) {
        if self.may_tell() {
            let audience = told_audience(settings);
            tracing::warn!(
                audience,
                ?headers,
                "a route looks for the key in the query, and the proxy sends none of the headers \
                 that name the original URI: nothing passes there"
            );
        }
    }

    /// What is remembered is told once. Of the rest, that people made up or that came too late, one is told now and then.
    fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|told| told.elapsed() >= TELL);
        if may {
            *told = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &str) -> Read {
        Read::clone(&Routes::new(false).read(settings))
    }

    #[test]
    fn a_route_says_what_it_needs_and_where_the_key_stands() {
        let route =
            read("audience=invoices-api&permissions=invoices:read%20AND%20(a+OR+b)&credentials=query:api_key,bearer").unwrap();
        assert_eq!(route.audience.as_deref(), Some("invoices-api"));
        assert_eq!(
            route.permissions.unwrap().as_str(),
            "invoices:read AND (a OR b)"
        );
        assert_eq!(route.places, "query:api_key,bearer".parse().unwrap());
        let one_by_one = HashMap::from([
            ("audience".to_owned(), "a b&c".to_owned()),
            ("organization".to_owned(), "acme".to_owned()),
        ]);
        let route = Read::clone(&Routes::new(false).of(&one_by_one)).unwrap();
        assert_eq!(
            (route.audience.as_deref(), route.organization.as_deref()),
            (Some("a b&c"), Some("acme"))
        );
    }

    #[test]
    fn nothing_is_guessed_about_a_route_that_is_not_understood() {
        for (settings, expected) in [
            (
                "audience=a&audiense=b",
                RouteError::Unknown("audiense".to_owned()),
            ),
            (
                "audience=a&audience=b",
                RouteError::Twice("audience".to_owned()),
            ),
            ("audience=", RouteError::Length("audience")),
            ("", RouteError::NoAudience),
            ("permissions=a", RouteError::NoAudience),
            ("audience=%ff", RouteError::Encoding),
            (
                "audience=a&permissions=",
                RouteError::Permissions(ExpressionError::Empty),
            ),
        ] {
            assert_eq!(read(settings).unwrap_err(), expected, "{settings}");
        }
        assert!(matches!(
            read("audience=a&credentials=everywhere"),
            Err(RouteError::Places(_))
        ));
        assert_eq!(
            read(&format!("audience={}", "a".repeat(5_000))).unwrap_err(),
            RouteError::TooLong
        );
        assert!(
            Routes::new(true).read("permissions=a").is_ok(),
            "said in so many words"
        );
    }

    #[test]
    fn settings_that_stand_one_by_one_are_written_as_they_are_read() {
        for settings in [
            &[
                ("audience", "invoices-api"),
                ("permissions", "a:b AND (c/d OR e)"),
            ][..],
            &[("audience", "a&organization=b"), ("organization", "50%")],
            &[("audience", "a+b"), ("permissions", "")],
            &[("", "a"), ("a=b", "c")],
            &[],
        ] {
            let text = written(settings);
            let read: Vec<_> = form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect();
            let expected: Vec<_> = settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn a_misconfigured_route_is_named_by_its_audience_and_a_key_is_not_repeated() {
        for (settings, expected) in [
            ("audience=invoices-api&audiense=b", Some("invoices-api")),
            ("permissions=a", None),
            ("audience=clv_0FAKE0FAKE0FAKE", Some("...")),
            ("clv_0FAKE0FAKE0FAKE", None),
        ] {
            assert_eq!(told_audience(settings).as_deref(), expected, "{settings}");
        }
    }

    #[test]
    fn made_up_routes_fill_no_memory() {
        let routes = Routes::new(false);
        for number in 0..3 * REMEMBERED {
            assert!(routes.read(&format!("audience=a{number}")).is_ok());
        }
        assert_eq!(routes.known.load().len(), REMEMBERED);
        assert!(
            routes.may_tell() && !routes.may_tell(),
            "nor the log, and yet one that came too late is told"
        );
    }
}
