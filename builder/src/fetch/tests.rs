use super::*;
use crate::testing::{Request, Server, announced, response};
use coop_runtime::event::{Event, Silent};
use tempfile::TempDir;

const TEXT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn fetcher(offline: bool) -> (TempDir, Fetcher) {
    let folder = TempDir::new().unwrap();
    let options = Options {
        backoff: Duration::from_millis(1),
        silence: Duration::from_secs(5),
        attempts: 3,
        offline,
        ..Options::default()
    };
    let store = Store::open(folder.path()).unwrap();
    (folder, Fetcher::new(store, options))
}

fn text_at(url: String) -> Download {
    Download {
        url,
        digest: Digest::of(TEXT),
        size_bytes: Some(TEXT.len() as u64),
    }
}

/// Fetches [`TEXT`] from a server and says what the server saw.
fn fetch_text(
    handler: impl Fn(&Request) -> Vec<u8> + Send + 'static,
) -> (Result<Vec<u8>, FetchError>, Vec<Request>) {
    let server = Server::start(handler);
    let (_folder, fetcher) = fetcher(false);
    let download = text_at(format!("{}/text", server.url));
    let result = fetcher
        .fetch(&[download], "download", &Silent)
        .map(|mut files| {
            let mut bytes = Vec::new();
            files[0].read_to_end(&mut bytes).unwrap();
            bytes
        });
    if result.is_err() {
        assert!(fetcher.store().blob(&Digest::of(TEXT)).unwrap().is_none());
    }
    (result, server.requests())
}

#[test]
fn a_cut_body_is_resumed() {
    let (result, requests) = fetch_text(|request| match request.range_start {
        None => announced("200 OK", "", TEXT.len(), &TEXT[..10]),
        Some(start) => response(
            "206 Partial Content",
            &format!("Content-Range: bytes {start}-35/36\r\n"),
            &TEXT[start..],
        ),
    });
    assert_eq!(result.unwrap(), TEXT);
    assert_eq!(requests[1].range_start, Some(10));
}

#[test]
fn a_server_that_ignores_the_range_sends_all_again() {
    let (result, requests) = fetch_text(|request| match request.number {
        0 => response("200 OK", "", &TEXT[..10]),
        _ => response("200 OK", "", TEXT),
    });
    assert_eq!(result.unwrap(), TEXT);
    assert_eq!(requests[1].range_start, Some(10));
}

#[test]
fn parts_of_two_files_are_not_joined() {
    let (result, requests) = fetch_text(|request| match request.range_start {
        None if request.number == 0 => response("200 OK", "", b"XXXXXXXXXX"),
        None => response("200 OK", "", TEXT),
        Some(start) => response(
            "206 Partial Content",
            &format!("Content-Range: bytes {start}-35/36\r\n"),
            &TEXT[start..],
        ),
    });
    assert_eq!(result.unwrap(), TEXT);
    assert_eq!(requests.len(), 3);
}

#[test]
fn wrong_bytes_are_refused() {
    let (result, _) = fetch_text(|_| {
        let mut wrong = TEXT.to_vec();
        wrong[20] ^= 1;
        response("200 OK", "", &wrong)
    });
    assert!(
        matches!(result, Err(FetchError::Mismatch { .. })),
        "{result:?}"
    );
}

#[test]
fn a_long_body_is_cut_off() {
    let (result, requests) = fetch_text(|_| response("200 OK", "", &TEXT.repeat(100_000)));
    assert!(
        matches!(
            result,
            Err(FetchError::TooLong {
                limit_bytes: 36,
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(requests.len(), 1);
}

#[test]
fn a_short_body_is_tried_a_bounded_number_of_times() {
    let (result, requests) = fetch_text(|_| response("200 OK", "", &TEXT[..35]));
    let error = result.unwrap_err();
    assert!(
        error.to_string().ends_with("ended after 35 of 36 bytes"),
        "{error}"
    );
    assert_eq!(requests.len(), 3);
}

#[test]
fn busy_servers_are_asked_again_and_missing_files_are_not() {
    let (result, requests) = fetch_text(|request| match request.number {
        0 => response("503 Service Unavailable", "", b""),
        _ => response("200 OK", "", TEXT),
    });
    assert_eq!((result.unwrap(), requests.len()), (TEXT.to_vec(), 2));
    let (result, requests) = fetch_text(|_| response("404 Not Found", "", b""));
    assert!(result.unwrap_err().is_missing());
    assert_eq!(requests.len(), 1);
}

#[test]
fn redirects_stay_within_http() {
    let (result, _) = fetch_text(|request| match request.path.as_str() {
        "/text" => response("302 Found", "Location: /other\r\n", b""),
        _ => response("200 OK", "", TEXT),
    });
    assert_eq!(result.unwrap(), TEXT);
    let (result, _) =
        fetch_text(|_| response("302 Found", "Location: file:///etc/passwd\r\n", b""));
    assert!(result.is_err(), "{result:?}");
    let (result, requests) = fetch_text(|_| response("302 Found", "Location: /text\r\n", b""));
    assert!(result.is_err() && requests.len() < 50, "{result:?}");
}

#[test]
fn local_files_are_read_and_checked() {
    let (folder, fetcher) = fetcher(true);
    let path = folder.path().join("a b");
    fs::write(&path, TEXT).unwrap();
    let url = format!("file://{}", path.display()).replace(' ', "%20");
    let mut downloads = vec![text_at(url.clone()), text_at(url.clone())];
    assert_eq!(fetcher.fetch(&downloads, "x", &Silent).unwrap().len(), 2);
    downloads[1].digest = Digest::of(b"other");
    assert!(fetcher.fetch(&downloads, "x", &Silent).is_err());
    assert_eq!(fetcher.read(&url, 36).unwrap(), TEXT);
    assert!(matches!(
        fetcher.read(&url, 35),
        Err(FetchError::TooLong { .. })
    ));
    for bad in ["file://host/etc", "file:relative", "ftp://x/y", "nothing"] {
        assert!(
            matches!(fetcher.read(bad, 1), Err(FetchError::Scheme(_))),
            "{bad}"
        );
    }
}

#[test]
fn offline_means_the_cache_alone() {
    let (_folder, fetcher) = fetcher(true);
    let download = text_at("http://nowhere.invalid/text".to_owned());
    let error = fetcher
        .fetch(std::slice::from_ref(&download), "x", &Silent)
        .unwrap_err();
    assert!(matches!(error, FetchError::Offline(_)));
    fetcher.store().put(TEXT).unwrap();
    assert!(fetcher.fetch(&[download], "x", &Silent).is_ok());
}

#[test]
fn many_downloads_keep_their_order() {
    let server = Server::start(|request| response("200 OK", "", request.path.as_bytes()));
    let (_folder, fetcher) = fetcher(false);
    let downloads: Vec<Download> = (0..40)
        .map(|number| Download {
            url: format!("{}/{number}", server.url),
            digest: Digest::of(format!("/{number}").as_bytes()),
            size_bytes: None,
        })
        .collect();
    let mut files = fetcher.fetch(&downloads, "x", &Silent).unwrap();
    let mut text = String::new();
    files[33].read_to_string(&mut text).unwrap();
    assert_eq!(text, "/33");
}

/// Calls the work off at once.
struct Impatient;

impl Observer for Impatient {
    fn event(&self, _event: &Event<'_>) {}

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_download_can_be_called_off() {
    let server = Server::start(|_| response("200 OK", "", TEXT));
    let (_folder, fetcher) = fetcher(false);
    let download = text_at(format!("{}/text", server.url));
    let result = fetcher.fetch(&[download.clone(), download], "download", &Impatient);
    assert!(
        matches!(result, Err(FetchError::Cancelled(_))),
        "{result:?}"
    );
}
