//! TLS: certificates that change, and clients that have one.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version};
use rustls::HandshakeKind;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::support::{Authority, H1, H2, TestServer, connect, soon, until, write};
use crate::gate::server::{Certificates, Limits};

/// The certificate that the server showed.
fn shown<S>(stream: &TlsStream<S>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Has the files looked at all the time, until dropped.
fn watch(certificates: &Arc<Certificates>) -> impl Drop + use<> {
    let token = CancellationToken::new();
    tokio::spawn(
        certificates
            .clone()
            .keep_current(Duration::from_millis(10), token.clone()),
    );
    token.drop_guard()
}

#[tokio::test]
async fn http2_and_http1_are_spoken_over_tls() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (certificate, key) = authority.sign("gate");
    let certificates =
        Arc::new(Certificates::load(write(dir.path(), (&certificate, &key), None)).unwrap());
    let server = TestServer::tls(certificates, Limits::default()).await;
    let h2 = authority.connect(&server, "h2", None).await.unwrap();
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let expected = |version| (version, StatusCode::OK, "127.0.0.1 false".to_owned());
    assert_eq!(
        H2::over(h2).await.get("/").await.unwrap(),
        expected(Version::HTTP_2)
    );
    let h1 = authority.connect(&server, "http/1.1", None).await.unwrap();
    assert_eq!(
        H1::over(h1).await.get("/").await.unwrap(),
        expected(Version::HTTP_11)
    );
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (first, first_key) = authority.sign("gate");
    let files = write(dir.path(), (&first, &first_key), None);
    let certificates = Arc::new(Certificates::load(files).unwrap());
    let server = TestServer::tls(certificates.clone(), Limits::default()).await;
    let before = authority.connect(&server, "h2", None).await.unwrap();
    let first_shown = shown(&before);
    let mut before = H2::over(before).await;
    before.get("/").await.unwrap();

    let _watching = watch(&certificates);
    let (second, second_key) = authority.sign("gate");
    write(dir.path(), (&second, &second_key), None);
    let after = loop {
        let stream = authority.connect(&server, "h2", None).await.unwrap();
        if shown(&stream) != first_shown {
            break stream;
        }
    };
    assert_eq!(
        H2::over(after).await.get("/").await.unwrap().1,
        StatusCode::OK
    );
    assert_eq!(
        before.get("/").await.unwrap().1,
        StatusCode::OK,
        "the old connection goes on"
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_explained() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (first, first_key) = authority.sign("gate");
    let (second, second_key) = authority.sign("gate");
    let ca = authority.pem();
    let files = write(dir.path(), (&first, &first_key), Some(&ca));
    let certificates = Arc::new(Certificates::load(files.clone()).unwrap());
    let serving = certificates.current();

    let half = &second[..second.len() / 2];
    for (certificate, key, ca, complaint) in [
        (
            second.as_str(),
            first_key.as_str(),
            ca.as_str(),
            "--tls-cert and --tls-key cannot be used together",
        ),
        (half, &second_key, &ca, "--tls-cert "),
        ("", &second_key, &ca, "it holds no certificate"),
        (&second, "", &ca, "it holds no whole private key"),
        (
            &second,
            &second_key[..60],
            &ca,
            "it holds no whole private key",
        ),
        (&second, &second_key, "nothing", "--tls-client-ca "),
        (
            &second,
            "-----BEGIN PRIVATE KEY----\nsecret",
            &ca,
            "--tls-key ",
        ),
    ] {
        write(dir.path(), (certificate, key), Some(ca));
        let error = Certificates::load(files.clone()).err().unwrap().to_string();
        assert!(error.contains(complaint), "{error}");
        assert!(
            !error.contains("BEGIN") && !error.contains("secret"),
            "{error}"
        );
        certificates.look(None);
        assert!(
            Arc::ptr_eq(&serving, &certificates.current()),
            "{complaint}: the old certificate stays"
        );
    }
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    let error = Certificates::load(files.clone()).err().unwrap().to_string();
    assert!(
        error.starts_with("--tls-key ") && error.contains("No such file"),
        "{error}"
    );
    certificates.look(None);
    assert!(Arc::ptr_eq(&serving, &certificates.current()));

    write(dir.path(), (&second, &second_key), Some(&ca));
    certificates.look(None);
    assert!(
        !Arc::ptr_eq(&serving, &certificates.current()),
        "what can be used is taken"
    );
}

#[tokio::test]
async fn files_that_stay_the_same_are_not_taken_again() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (certificate, key) = authority.sign("gate");
    let certificates =
        Arc::new(Certificates::load(write(dir.path(), (&certificate, &key), None)).unwrap());
    let serving = certificates.current();
    certificates.look(Some(certificates.loaded));
    assert!(
        Arc::ptr_eq(&serving, &certificates.current()),
        "sessions go on"
    );
}

#[tokio::test]
async fn a_client_may_show_a_certificate_and_it_must_be_of_the_authority() {
    let (dir, authority, foreign) = (
        tempfile::tempdir().unwrap(),
        Authority::new("ours"),
        Authority::new("foreign"),
    );
    let (certificate, key) = authority.sign("gate");
    let files = write(dir.path(), (&certificate, &key), Some(&authority.pem()));
    let certificates = Arc::new(Certificates::load(files).unwrap());
    let server = TestServer::tls(certificates.clone(), Limits::default()).await;

    let certified = async |own: Option<(String, String)>| {
        let stream = authority.connect(&server, "h2", own).await.ok()?;
        Some(
            H2::over(stream)
                .await
                .get("/")
                .await
                .ok()?
                .2
                .ends_with("true"),
        )
    };
    assert_eq!(certified(None).await, Some(false));
    assert_eq!(certified(Some(authority.sign("proxy"))).await, Some(true));
    assert_eq!(certified(Some(foreign.sign("proxy"))).await, None);
    until(|| server.counters.refused_handshakes.get() == 1).await;

    let stranger = authority.connect(&server, "h2", None).await.unwrap();
    let mut stranger = H2::over(stranger).await;
    stranger.get("/").await.unwrap();
    let proxy = authority
        .connect(&server, "h2", Some(authority.sign("proxy")))
        .await
        .unwrap();
    let mut proxy = H2::over(proxy).await;
    let (renewed, renewed_key) = authority.sign("gate");
    write(dir.path(), (&renewed, &renewed_key), Some(&authority.pem()));
    certificates.look(None);
    assert_eq!(
        proxy.get("/").await.unwrap().2,
        "127.0.0.1 true",
        "another certificate of the server changes nothing"
    );

    // The authority is changed under the running server.
    let mut waits = proxy.clone();
    let waits = tokio::spawn(async move { waits.get("/wait").await });
    soon(server.waiting.acquire()).await.unwrap().forget();
    write(dir.path(), (&certificate, &key), Some(&foreign.pem()));
    certificates.look(None);
    soon(async { while proxy.get("/").await.is_ok() {} }).await;
    server.let_go.add_permits(1);
    assert_eq!(
        waits.await.unwrap().unwrap().2,
        "done",
        "what was under way is answered"
    );
    assert_eq!(
        stranger.get("/").await.unwrap().1,
        StatusCode::OK,
        "who had no certificate lost none"
    );
    assert_eq!(certified(Some(foreign.sign("proxy"))).await, Some(true));
    assert_eq!(certified(Some(authority.sign("proxy"))).await, None);
    assert_eq!(certified(None).await, Some(false));
}

/// A session that is taken up again would bring a certificate along that may have ended since.
#[tokio::test]
async fn where_certificates_are_asked_for_every_connection_shows_its_own() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (certificate, key) = authority.sign("gate");
    for (client_ca, expected) in [
        (None, HandshakeKind::Resumed),
        (Some(authority.pem()), HandshakeKind::Full),
    ] {
        let certificates = Certificates::load(write(
            dir.path(),
            (&certificate, &key),
            client_ca.as_deref(),
        ))
        .unwrap();
        let server = TestServer::tls(Arc::new(certificates), Limits::default()).await;
        let client = authority.client("h2", Some(authority.sign("proxy")));
        // What is needed to take the session up again comes with the first answer.
        let first = connect(&client, &server).await.unwrap();
        assert_eq!(
            H2::over(first).await.get("/").await.unwrap().1,
            StatusCode::OK
        );
        let second = connect(&client, &server).await.unwrap();
        assert_eq!(second.get_ref().1.handshake_kind(), Some(expected));
        let told = H2::over(second).await.get("/").await.unwrap().2;
        assert_eq!(told, format!("127.0.0.1 {}", client_ca.is_some()));
    }
}

#[tokio::test]
async fn without_an_authority_no_client_is_certified() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (certificate, key) = authority.sign("gate");
    let certificates =
        Arc::new(Certificates::load(write(dir.path(), (&certificate, &key), None)).unwrap());
    let server = TestServer::tls(certificates, Limits::default()).await;
    let stream = authority
        .connect(&server, "h2", Some(authority.sign("proxy")))
        .await
        .unwrap();
    assert_eq!(
        H2::over(stream).await.get("/").await.unwrap().2,
        "127.0.0.1 false"
    );
}

#[tokio::test]
async fn who_does_not_shake_hands_is_not_waited_for() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let (certificate, key) = authority.sign("gate");
    let certificates =
        Arc::new(Certificates::load(write(dir.path(), (&certificate, &key), None)).unwrap());
    let server = TestServer::tls(
        certificates,
        Limits {
            handshake: Duration::from_millis(50),
            ..Limits::default()
        },
    )
    .await;
    server.raw().await.closed().await;
    assert_eq!(server.counters.refused_handshakes.get(), 1);
    let mut plain = server.raw().await;
    plain.say("GET / HTTP/1.1\r\n\r\n").await;
    plain.closed().await;
    assert_eq!(server.counters.refused_handshakes.get(), 2);
}
