//! The certificates and keys of one control plane, made anew for each.
//!
//! They keep the library's validity (from 1975 to 4096), so that a test that plays with the clock never meets an
//! expired certificate.

use std::net::{IpAddr, Ipv4Addr};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::Error;

/// The object identifier of `organizationName`: Kubernetes reads each one in a subject as a group.
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// A certificate authority: whom it signs for, the API server believes.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, in PEM.
    pub(super) certificate: String,
}

/// A certificate and its private key, both in PEM.
#[derive(Debug)]
pub(super) struct Identity {
    /// The certificate.
    pub(super) certificate: String,
    /// The private key (PKCS #8).
    pub(super) key: String,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// [`Error::Certificate`] if the system has no randomness to give.
    pub(super) fn new() -> Result<Self, Error> {
        let subject = "claviger throw-away control plane";
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(subject);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().map_err(failed(subject))?;
        let certificate = params.self_signed(&key).map_err(failed(subject))?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// What the API server shows to its clients, for 127.0.0.1 and localhost.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub(super) fn server(&self) -> Result<Identity, Error> {
        let subject = "kube-apiserver";
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        .map(str::to_owned);
        let mut params = CertificateParams::new(names).map_err(failed(subject))?;
        params
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name = common_name(subject);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(subject, params)
    }

    /// What a client shows to the API server: there it is `user`, in `groups`.
    ///
    /// # Errors
    /// [`Error::TooManyGroups`] for more than two groups; [`Error::Certificate`].
    pub(super) fn client(&self, user: &str, groups: &[String]) -> Result<Identity, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(user);
        // The library holds one value for each attribute type, but knows this one by two names.
        let types = [
            DnType::OrganizationName,
            DnType::CustomDnType(ORGANIZATION.to_vec()),
        ];
        if groups.len() > types.len() {
            return Err(Error::TooManyGroups {
                user: user.to_owned(),
                count: groups.len(),
            });
        }
        for (attribute, group) in types.into_iter().zip(groups) {
            params.distinguished_name.push(attribute, group.as_str());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(user, params)
    }

    fn sign(&self, subject: &str, mut params: CertificateParams) -> Result<Identity, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed(subject))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed(subject))?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The key that signs service account tokens: private (PKCS #8) and public part, both in PEM.
///
/// # Errors
/// [`Error::Certificate`] if the system has no randomness to give.
pub(super) fn token_signing_key() -> Result<(String, String), Error> {
    let key = KeyPair::generate().map_err(failed("service account tokens"))?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn failed(subject: &str) -> impl FnOnce(rcgen::Error) -> Error + '_ {
    move |source| Error::Certificate {
        subject: subject.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_client_certificate_carries_two_groups_at_most() -> Result<(), super::Error> {
        let authority = super::Authority::new()?;
        let groups = ["a", "b", "c"].map(str::to_owned);
        let identity = authority.client("someone", groups.get(..2).unwrap_or_default())?;
        assert!(
            identity
                .certificate
                .starts_with("-----BEGIN CERTIFICATE-----")
        );
        let refused = authority.client("someone", &groups);
        assert!(
            matches!(refused, Err(super::Error::TooManyGroups { count: 3, .. })),
            "{refused:?}"
        );
        Ok(())
    }
}
