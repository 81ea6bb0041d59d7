//! The life of one request, from the operator's connection to the API server and back.

use super::call::{Call, Verb};
use super::fault::{Fault, Faults, Rule, When};
use super::journal::{Entry, Journal};
use super::status::{self, RETRY_AFTER};
use super::upstream::{self, Answer, BoxError, Upstream, full};
use super::watches::{self, Admission, Gone, Pass, Watches};
use http::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER as RETRY_AFTER_HEADER};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::fmt::rfc2822::{self, DateTimePrinter};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// What the handle and the connections share.
pub(super) struct Shared {
    pub(super) journal: Arc<Journal>,
    pub(super) faults: Faults,
    pub(super) watches: Arc<Watches>,
    pub(super) down: watch::Sender<bool>,
    pub(super) record_bodies: AtomicBool,
    /// Seconds.
    pub(super) date_shift: AtomicI64,
    upstream: Upstream,
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by the fault proxy")
    }
}

impl std::error::Error for Closed {}

impl Shared {
    pub(super) fn new(upstream: &str, ca_pem: Option<&str>) -> Self {
        Self {
            journal: Arc::default(),
            faults: Faults::default(),
            watches: Arc::default(),
            down: watch::Sender::new(false),
            record_bodies: AtomicBool::new(false),
            date_shift: AtomicI64::new(0),
            upstream: Upstream::new(upstream, ca_pem),
        }
    }
}

/// Accepts connections for ever.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(connection(shared.clone(), stream));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true); // without it events come late, no more
    let mut down = shared.down.subscribe();
    let service = service_fn(move |request| {
        // On a task of its own, so that a request survives its sender.
        let exchange = tokio::spawn(Exchange::run(shared.clone(), request));
        async move { exchange.await.unwrap_or(Err(Closed)) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => {}
        _ = http.serve_connection(TokioIo::new(stream), service) => {}
    }
}

/// One request being handled.
struct Exchange {
    shared: Arc<Shared>,
    call: Call,
    entry: Entry,
    rule: Option<Rule>,
}

impl Exchange {
    async fn run(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Closed> {
        let (parts, body) = request.into_parts();
        // In full, since a fault must act on a whole request and some of it is told by the body.
        // A sender that stops midway has not made a request.
        let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
        let mut call = Call::parse(&parts.method, &parts.uri, &body);
        let entry = shared.journal.open(&mut call);
        if shared.record_bodies.load(Ordering::SeqCst) {
            entry.note(|record| record.request_body = Some(body.clone()));
        }
        let rule = shared.faults.pick(&call);
        let exchange = Self {
            shared,
            call,
            entry,
            rule,
        };
        let mut answer = exchange.answer(parts, body).await?;
        exchange.shift_date(answer.headers_mut());
        let code = answer.status().as_u16();
        exchange.entry.note(|record| record.answered = Some(code));
        Ok(answer)
    }

    async fn answer(&self, parts: http::request::Parts, body: Bytes) -> Result<Answer, Closed> {
        if let Some(answer) = self.fault(When::Before).await? {
            return Ok(answer);
        }
        let pass = if self.call.verb == Verb::Watch {
            match self.shared.watches.admit(&self.call) {
                Admission::Expired(gone) => return Ok(self.gone(gone)),
                Admission::Open(pass) => Some(pass),
            }
        } else {
            None
        };
        let response = self.shared.upstream.send(parts, body).await;
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        upstream::scrub(response.headers_mut());
        let code = response.status().as_u16();
        self.entry.note(|record| record.upstream = Some(code));
        match pass {
            // A refused watch is an ordinary answer.
            Some(pass) if response.status().is_success() => self.watch(response, pass).await,
            _ => self.finish(response).await,
        }
    }

    async fn watch(&self, response: Response<Incoming>, pass: Pass) -> Result<Answer, Closed> {
        if let Some(answer) = self.fault(When::After).await? {
            return Ok(answer);
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let (head, events) = response.into_parts();
        tokio::spawn(watches::carry(events, pass, sender));
        Ok(Response::from_parts(head, upstream::channel(receiver)))
    }

    async fn finish(&self, response: Response<Incoming>) -> Result<Answer, Closed> {
        let (head, body) = response.into_parts();
        let record = self.shared.record_bodies.load(Ordering::SeqCst);
        let stop = self.rule.as_ref().is_some_and(|r| r.when() == When::After);
        if !record && !stop {
            let body = body.map_err(BoxError::from).boxed_unsync();
            return Ok(Response::from_parts(head, body));
        }
        let body = body.collect().await;
        let body = body.map_err(|error| self.unreachable(&error))?.to_bytes();
        if record {
            self.entry
                .note(|record| record.response_body = Some(body.clone()));
        }
        if let Some(answer) = self.fault(When::After).await? {
            return Ok(answer);
        }
        Ok(Response::from_parts(head, full(body)))
    }

    /// Lets the rule act if this is its time. `None`: the request goes on.
    async fn fault(&self, now: When) -> Result<Option<Answer>, Closed> {
        let Some(rule) = self.rule.as_ref().filter(|rule| rule.when() == now) else {
            return Ok(None);
        };
        self.entry
            .note(|record| record.trouble = Some(rule.to_string()));
        if let Fault::Call(hook) = rule.fault() {
            let (hook, rule) = (hook.clone(), rule.clone());
            let run = tokio::task::spawn_blocking(move || {
                hook.run();
                rule.mark_fired();
            });
            let _ = run.await; // a hook that panicked leaves the rule unfired
            return Err(Closed);
        }
        rule.mark_fired();
        match rule.fault() {
            Fault::Respond(code) => Ok(Some(self.refusal(*code))),
            Fault::Delay(hold) => {
                hold.arrive();
                hold.wait_for_release().await;
                Ok(None)
            }
            Fault::Hang => {
                rule.wait_for_removal().await;
                Err(Closed)
            }
            Fault::Drop | Fault::Call(_) => Err(Closed),
        }
    }

    fn refusal(&self, code: u16) -> Answer {
        let body = status::status(code, &self.call).to_string();
        let mut answer = json_answer(StatusCode::from_u16(code).expect("a status code"), body);
        if code == 429 {
            let seconds = HeaderValue::from(RETRY_AFTER);
            answer.headers_mut().insert(RETRY_AFTER_HEADER, seconds);
        }
        answer
    }

    fn gone(&self, gone: Gone) -> Answer {
        self.entry
            .note(|record| record.trouble = Some("watch expired".to_owned()));
        match gone {
            Gone::Status => self.refusal(410),
            Gone::Event => {
                let status = status::status(410, &self.call);
                let event = json!({"type": "ERROR", "object": status});
                json_answer(StatusCode::OK, format!("{event}\n"))
            }
        }
    }

    /// An API server that cannot be reached looks from the operator like a connection that ends.
    fn unreachable(&self, error: &dyn std::error::Error) -> Closed {
        let cause = error.source().map(|cause| format!(": {cause}"));
        let trouble = format!("{error}{}", cause.unwrap_or_default());
        self.entry.note(|record| record.trouble = Some(trouble));
        Closed
    }

    fn shift_date(&self, headers: &mut HeaderMap) {
        let shift = self.shared.date_shift.load(Ordering::SeqCst);
        if shift == 0 {
            return;
        }
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(date).ok());
        let date = date.map_or_else(Timestamp::now, |date| date.timestamp());
        let shifted = date.saturating_add(SignedDuration::from_secs(shift));
        let shifted = shifted.expect("a duration is not a calendar span");
        let shifted = DateTimePrinter::new().timestamp_to_rfc9110_string(&shifted);
        let shifted = shifted.ok().and_then(|date| date.parse().ok());
        headers.insert(DATE, shifted.expect("a date within 9999 years"));
    }
}

fn json_answer(code: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
