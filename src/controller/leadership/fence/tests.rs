use std::sync::atomic::AtomicUsize;

use http::Response;
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::{Body, ClientBuilder};
use kube::{Api, Client};

use super::*;

/// A fenced client of a server which takes `pause` to answer, and the count of requests that reached it.
fn fenced(fence: &Fence, pause: Duration) -> (Api<ConfigMap>, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = reached.clone();
    let server = tower::service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(pause).await;
            let list =
                request.uri().path().ends_with("/configmaps") && request.method() == Method::GET;
            let body = if list {
                r#"{"metadata":{},"items":[]}"#
            } else {
                r#"{"metadata":{"name":"a"}}"#
            };
            let body = Full::new(bytes_of(body)).map_err(std::io::Error::other);
            Ok::<_, BoxError>(Response::new(body))
        }
    });
    let client: Client = ClientBuilder::new(server, "default")
        .with_layer(&fence.layer())
        .build();
    (Api::default_namespaced(client), reached)
}

fn bytes_of(text: &'static str) -> hyper::body::Bytes {
    hyper::body::Bytes::from_static(text.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn passes_until_the_deadline_and_not_at_it() {
    let fence = Fence::closed();
    assert_eq!(fence.check(), Err(Fenced::Refused));
    fence.extend(Instant::now() + Duration::from_secs(10));
    let clone = fence.clone();
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(clone.check(), Ok(()));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(clone.check(), Err(Fenced::Refused));
    assert_eq!(Fence::open().check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_takes_nothing_back_and_closing_does() {
    let fence = Fence::closed();
    fence.extend(Instant::now() + Duration::from_secs(10));
    fence.extend(Instant::now() + Duration::from_secs(5));
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(fence.check(), Ok(()));
    fence.close();
    assert_eq!(fence.check(), Err(Fenced::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_closed_fence_stops_every_write_and_no_read() {
    let fence = Fence::closed();
    let (api, reached) = fenced(&fence, Duration::ZERO);
    let (post, patch, delete) = (
        PostParams::default(),
        PatchParams::apply("t"),
        DeleteParams::default(),
    );
    let map: ConfigMap = serde_json::from_str(r#"{"metadata":{"name":"a"}}"#).unwrap();
    let errors = [
        api.create(&post, &map).await.unwrap_err(),
        api.replace("a", &post, &map).await.unwrap_err(),
        api.patch("a", &patch, &Patch::Apply(&map))
            .await
            .unwrap_err(),
        api.delete("a", &delete).await.unwrap_err(),
        api.delete_collection(&delete, &ListParams::default())
            .await
            .unwrap_err(),
    ];
    for error in &errors {
        assert!(is_fenced(error), "{error:?}");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    api.get("a").await.unwrap();
    api.list(&ListParams::default()).await.unwrap();
    assert_eq!(reached.load(Ordering::SeqCst), 2);

    fence.extend(Instant::now() + Duration::from_secs(1));
    api.create(&post, &map)
        .await
        .expect("the client survives a refusal");
}

#[tokio::test(start_paused = true)]
async fn a_write_under_way_is_abandoned_at_the_deadline() {
    let fence = Fence::closed();
    let start = Instant::now();
    fence.extend(start + Duration::from_secs(10));
    let (api, reached) = fenced(&fence, Duration::from_secs(60));
    let error = api.delete("a", &DeleteParams::default()).await.unwrap_err();
    assert!(
        is_fenced(&error) && error.to_string().contains("may have been applied"),
        "{error}"
    );
    assert_eq!(
        (start.elapsed().as_secs(), reached.load(Ordering::SeqCst)),
        (10, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_under_way_goes_on_when_the_lease_is_renewed() {
    let fence = Fence::closed();
    fence.extend(Instant::now() + Duration::from_secs(10));
    let (api, _) = fenced(&fence, Duration::from_secs(15));
    let renewal = fence.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(8)).await;
        renewal.extend(Instant::now() + Duration::from_secs(10));
    });
    assert!(api.delete("a", &DeleteParams::default()).await.is_ok());
    let (api, _) = fenced(&Fence::open(), Duration::from_secs(60));
    assert!(api.delete("a", &DeleteParams::default()).await.is_ok());
}

#[test]
fn other_errors_are_not_taken_for_the_fence() {
    assert!(!is_fenced(&kube::Error::Service("broken pipe".into())));
    assert!(is_fenced(&kube::Error::Service(Fenced::Abandoned.into())));
}
