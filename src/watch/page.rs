//! A page of a list, with a bound on its bytes: the pages of a list of large objects have fewer of
//! them, so that no tenant's objects fill the memory.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::collection::Collection;
use super::error::Error;

/// Objects of a page, where they are small.
pub(super) const MOST_OBJECTS: u32 = 500;

/// Bytes of a page. One object always fits: etcd stores at most 1.5 MiB of it, of which a byte takes at
/// most six in JSON.
const MOST_BYTES: usize = 16 << 20;

/// A page of a list.
pub(super) struct Page(Bytes);

/// The content of a page. Its objects are not decoded yet.
#[derive(Deserialize)]
pub(super) struct Content<'a> {
    pub(super) metadata: PageMetadata,
    #[serde(borrow, default)]
    pub(super) items: Vec<&'a RawValue>,
}

/// Where a list stands, and how it goes on.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMetadata {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

impl Page {
    /// Asks for a page. `None` where it has too many bytes.
    pub(super) async fn request(
        client: &Client,
        request: Request<Vec<u8>>,
        collection: &Collection,
    ) -> Result<Option<Self>, Error> {
        let of = |error| Error::of(error, collection);
        let response = client.send(request.map(Body::from)).await.map_err(of)?;
        let status = response.status();
        let body = match Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await
        {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => return Ok(None),
            Err(error) => return Err(of(kube::Error::Service(error))),
        };
        if status.is_success() {
            return Ok(Some(Self(body)));
        }
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| {
            Status::failure("the answer is no status", "").with_code(status.as_u16())
        });
        Err(of(kube::Error::Api(Box::new(refusal))))
    }

    pub(super) fn content(&self) -> Result<Content<'_>, Error> {
        serde_json::from_slice(&self.0).map_err(|_| Error::Unreadable)
    }
}

/// How many objects a page is asked for.
pub(super) struct PageSize(u32);

impl Default for PageSize {
    fn default() -> Self {
        Self(MOST_OBJECTS)
    }
}

impl PageSize {
    pub(super) fn objects(&self) -> u32 {
        self.0
    }

    /// A page was too large.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where it had one object.
    pub(super) fn shrink(&mut self) -> Result<(), Error> {
        if self.0 == 1 {
            return Err(Error::TooLarge(MOST_BYTES));
        }
        self.0 = (self.0 / 8).max(1);
        Ok(())
    }

    /// A page came whole.
    pub(super) fn grow(&mut self) {
        self.0 = (self.0 * 2).min(MOST_OBJECTS);
    }
}
