//! What ApiKeys have in common.

use std::ops::Range;

use super::texts::{self, Texts};
use crate::gate::shown::ShownApiKey;

/// What ApiKeys often have in common; kept once for all that do.
///
/// Its texts stand in one piece of memory: where a million keys are known, each further piece that an answer needs is one more wait
/// for memory that is in no cache.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    text: Box<str>,
    /// Where the parts of the text end, in the order of [`Part`].
    ends: [u32; Part::COUNT],
    has_organization: bool,
    include_sub_organizations: bool,
    whole_principal: bool,
}

/// A part of the text, in the order in which a decision and then an answer needs them.
#[derive(Clone, Copy)]
enum Part {
    Audiences,
    Permissions,
    Roles,
    Organization,
    Namespace,
    Principal,
    Metadata,
}

/// The name in audit logs: mostly `<keyId>@<namespace>.<domain>`, of which only the domain is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Principal<'a> {
    Domain(&'a str),
    Whole(&'a str),
}

impl Part {
    const COUNT: usize = Self::Metadata as usize + 1;
}

impl Profile {
    pub(super) fn of(shown: &ShownApiKey) -> Self {
        let (meta, spec, status) = (&shown.metadata, &shown.spec, &shown.status);
        let key_id = status.key_id.as_deref().unwrap_or_default();
        let principal = Principal::of(
            status.principal.as_deref().unwrap_or_default(),
            key_id,
            &meta.namespace,
        );
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(Part::COUNT));
        // No object is anywhere near 4 GiB. If one were, its keys would have nothing of what is beyond.
        let mut end = |text: &str| ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        for list in [&spec.audiences, &spec.permissions, &spec.roles] {
            for name in list {
                texts::push(&mut text, name);
            }
            end(&text);
        }
        let (Principal::Domain(told) | Principal::Whole(told)) = principal;
        for one in [
            status.organization.as_deref().unwrap_or_default(),
            &meta.namespace,
            told,
        ] {
            text.push_str(one);
            end(&text);
        }
        for (name, value) in &spec.metadata {
            texts::push(&mut text, name);
            texts::push(&mut text, value);
        }
        end(&text);
        Self {
            text: text.into(),
            ends: ends.try_into().unwrap_or_default(),
            has_organization: status.organization.is_some(),
            include_sub_organizations: spec.include_sub_organizations.unwrap_or_default(),
            whole_principal: matches!(principal, Principal::Whole(_)),
        }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(Part::Namespace)
    }

    /// The organization, as recorded.
    #[must_use]
    pub fn organization(&self) -> Option<&str> {
        self.has_organization.then(|| self.part(Part::Organization))
    }

    /// Whether it counts for organizations below its own.
    #[must_use]
    pub fn include_sub_organizations(&self) -> bool {
        self.include_sub_organizations
    }

    /// The protected APIs it is for.
    #[must_use]
    pub fn audiences(&self) -> Texts<'_> {
        Texts::of(self.part(Part::Audiences))
    }

    /// Its roles.
    #[must_use]
    pub fn roles(&self) -> Texts<'_> {
        Texts::of(self.part(Part::Roles))
    }

    /// Its permissions besides those of its roles.
    #[must_use]
    pub fn permissions(&self) -> Texts<'_> {
        Texts::of(self.part(Part::Permissions))
    }

    /// What its owner tells those who ask, sorted by name.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut texts = Texts::of(self.part(Part::Metadata));
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }

    pub(super) fn principal(&self) -> Principal<'_> {
        let told = self.part(Part::Principal);
        if self.whole_principal {
            Principal::Whole(told)
        } else {
            Principal::Domain(told)
        }
    }

    fn part(&self, part: Part) -> &str {
        self.text.get(self.range(part)).unwrap_or_default()
    }

    fn range(&self, part: Part) -> Range<usize> {
        let end = |at: usize| {
            self.ends
                .get(at)
                .map_or(0, |end| usize::try_from(*end).unwrap_or(usize::MAX))
        };
        let at = part as usize;
        at.checked_sub(1).map_or(0, end)..end(at)
    }
}

impl<'a> Principal<'a> {
    fn of(principal: &'a str, key_id: &str, namespace: &str) -> Self {
        let domain = principal
            .strip_prefix(key_id)
            .and_then(|rest| rest.strip_prefix('@'));
        let domain = domain
            .and_then(|rest| rest.strip_prefix(namespace))
            .and_then(|rest| rest.strip_prefix('.'));
        match domain.filter(|_| key_id.len() == 32) {
            Some(domain) => Self::Domain(domain),
            None => Self::Whole(principal),
        }
    }
}
