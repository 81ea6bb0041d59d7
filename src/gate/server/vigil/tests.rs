use super::*;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

fn limits() -> Limits {
    Limits {
        first_request: Duration::from_secs(3),
        head: Duration::from_secs(1),
        idle: Duration::from_secs(1000),
        request: Duration::from_secs(100),
        write: Duration::from_secs(10),
        ..Limits::default()
    }
}

fn new() -> Vigil {
    Vigil::new(limits(), Room::new(64 << 20), Arc::default())
}

/// After how many seconds what is overdue, if nothing happens any more.
async fn overdue(vigil: &Vigil) -> (u64, Overdue) {
    let begun = Instant::now();
    let mut watch = Watch::new(vigil.clone());
    let what = std::future::poll_fn(|context| watch.poll(context)).await;
    (begun.elapsed().as_secs(), what)
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_not_waited_for() {
    assert_eq!(overdue(&new()).await, (3, Overdue::Head));
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte_on() {
    let vigil = new();
    pass(1).await;
    vigil.read(b"G");
    vigil.read(b"E");
    assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
    let late = new();
    pass(2).await;
    late.read(b"P");
    pass(1).await;
    late.read(b"O");
    assert_eq!(
        overdue(&late).await,
        (0, Overdue::Head),
        "the second byte does not begin it anew"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_and_its_next_head_has_its_time_again() {
    let vigil = new();
    vigil.read(HEAD);
    drop(vigil.begin(Some(0)));
    assert_eq!(overdue(&vigil).await, (1000, Overdue::Idle));
    vigil.read(b"G");
    assert_eq!(
        overdue(&vigil).await,
        (1, Overdue::Head),
        "at the last moment it is idle no more"
    );
    drop(vigil.begin(Some(0)));
    pass(500).await;
    vigil.read(b"G");
    assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_request_is_no_head() {
    let vigil = new();
    vigil.read(b"POST / HTTP/1.1\r\n\r\n");
    let request = vigil.begin(Some(8));
    vigil.read(b"body");
    assert_eq!(overdue(&vigil).await, (100, Overdue::Progress));
    drop(request);
    vigil.read(b"body");
    assert_eq!(overdue(&vigil).await, (1000, Overdue::Idle));
    vigil.read(b"G");
    assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_came_with_a_request_has_no_more_time_than_another() {
    let vigil = new();
    vigil.read(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nslow: ");
    drop(vigil.begin(Some(0)));
    assert_eq!(
        overdue(&vigil).await,
        (1, Overdue::Idle),
        "nobody has to read anything for that"
    );
    vigil.read(b"l");
    assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
    drop(vigil.begin(Some(0)));
    assert_eq!(
        overdue(&vigil).await,
        (1, Overdue::Idle),
        "nobody knows what came with this one"
    );
}

#[tokio::test(start_paused = true)]
async fn http2_may_say_what_it_likes_between_requests() {
    let vigil = new();
    vigil.read(&PREFACE[..10]);
    assert_eq!(
        vigil.next().1,
        Overdue::Head,
        "the preface has its time, too"
    );
    vigil.read(&PREFACE[10..]);
    vigil.read(b"ping");
    assert_eq!(overdue(&vigil).await, (3, Overdue::Idle));
    let first = vigil.begin(Some(0));
    pass(30).await;
    let second = vigil.begin(Some(0));
    pass(20).await;
    assert_eq!(overdue(&vigil).await, (50, Overdue::Progress));
    drop(first);
    pass(10).await;
    drop(vigil.begin(Some(0)));
    assert_eq!(
        overdue(&vigil).await,
        (20, Overdue::Progress),
        "others that come and go gain it no time"
    );
    drop(second);
    vigil.read(b"ping");
    assert_eq!(overdue(&vigil).await, (1000, Overdue::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_off() {
    let vigil = new();
    let _request = vigil.begin(Some(0));
    vigil.wrote(true);
    pass(5).await;
    vigil.wrote(true);
    assert_eq!(overdue(&vigil).await, (5, Overdue::Progress));
    vigil.wrote(false);
    assert_eq!(vigil.next().0, Instant::now() + Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn who_has_been_answered_is_idle_from_then_on() {
    let short = Limits {
        idle: Duration::from_secs(2),
        ..limits()
    };
    let vigil = Vigil::new(short, Room::new(64 << 20), Arc::default());
    vigil.read(HEAD);
    let request = vigil.begin(Some(0));
    let begun = Instant::now();
    let mut watch = Watch::new(vigil.clone());
    let (mut request, mut answering) = (
        Some(request),
        Box::pin(tokio::time::sleep(Duration::from_secs(5))),
    );
    let turn = std::future::poll_fn(|context| {
        if request.is_some() && answering.as_mut().poll(context).is_ready() {
            request = None;
        }
        watch.poll(context)
    });
    assert_eq!(turn.await, Overdue::Idle);
    assert_eq!(begun.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_close_after_a_farewell_is_cut_off() {
    let vigil = new();
    drop(vigil.begin(Some(0)));
    vigil.say_farewell();
    assert_eq!(overdue(&vigil).await, (5, Overdue::Progress));
}

#[tokio::test(start_paused = true)]
async fn the_idle_make_way_when_it_is_crowded() {
    let crowded = Arc::new(AtomicUsize::new(0));
    let limits = Limits {
        crowded_idle: Duration::from_secs(30),
        ..limits()
    };
    let vigil = Vigil::new(limits, Room::new(64 << 20), crowded.clone());
    vigil.read(HEAD);
    drop(vigil.begin(Some(0)));
    let others = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(100)).await;
        crowded.store(1, Ordering::Relaxed);
    });
    assert_eq!(
        overdue(&vigil).await,
        (120, Overdue::Idle),
        "at the next look"
    );
    others.await.unwrap();
    let _request = vigil.begin(Some(0));
    assert_eq!(
        overdue(&vigil).await,
        (100, Overdue::Progress),
        "a request under way is not cut short"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retired_connection_ends_whatever_it_does() {
    let vigil = new();
    vigil.retire();
    pass(19).await;
    let _request = vigil.begin(Some(0));
    assert_eq!(overdue(&vigil).await, (1, Overdue::Progress));
}

/// Many slow heads would hold the memory that all need.
#[tokio::test(start_paused = true)]
async fn heads_that_come_in_pieces_take_room_of_which_one_peer_gets_a_quarter() {
    let room = Room::new(400);
    let of = |last: u8| Vigil::new(limits(), room.of([192, 0, 2, last].into()), Arc::default());
    let piece = [b'x'; 40];
    let (first, second, third, other) = (of(1), of(1), of(1), of(2));
    for vigil in [&first, &second, &third, &other] {
        vigil.read(&piece);
        assert_eq!(
            vigil.next(),
            (Instant::now() + limits().head, Overdue::Head),
            "one piece takes none"
        );
    }
    first.read(&piece);
    second.read(&piece);
    assert_eq!(first.next().0, Instant::now() + limits().head);
    assert_eq!(
        second.next(),
        (Instant::now(), Overdue::Head),
        "there is none left for it"
    );
    other.read(&piece);
    assert_eq!(
        other.next().0,
        Instant::now() + limits().head,
        "it has its own"
    );
    drop(first.begin(Some(0)));
    third.read(&piece);
    assert_eq!(
        third.next().0,
        Instant::now() + limits().head,
        "who has come to the end of it gives it back"
    );
}
