//! How a server and a client deal with bytes that are not valid.

use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use super::support::{
    Echo, Frames, UNARY, ask, ask_layered, client_of, framed, over_a_connection, pieces, string,
    with_trailers,
};

/// Each kind of method has its own code for requests.
const METHODS: [&str; 4] = ["Unary", "Down", "Up", "Both"];

#[tokio::test]
async fn a_request_is_answered() {
    let server = Echo::default();
    for method in METHODS {
        for size in [1, 3, 100] {
            let answer = ask(&server, method, &[], pieces(&string("word"), size)).await;
            assert_eq!(answer.status.code(), Code::Ok, "{answer:?}");
            assert_eq!(answer.data, string("word"));
        }
    }
    let two = [string("a"), string("b")].concat();
    assert_eq!(ask(&server, "Up", &[], pieces(&two, 4)).await.data, string("ab"));
    assert_eq!(ask(&server, "Both", &[], pieces(&two, 4)).await.data, two);
}

#[tokio::test]
async fn another_number_of_requests_than_one_is_unimplemented() {
    let server = Echo::default();
    let two = [string("a"), string("b")].concat();
    for method in ["Unary", "Down"] {
        for body in [pieces(&[], 1), pieces(&two, 100), pieces(&two, 1)] {
            let answer = ask(&server, method, &[], body).await;
            assert_eq!(answer.status.code(), Code::Unimplemented, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn half_a_message_is_no_end() {
    let server = Echo::default();
    let data = string("cut off");
    for method in METHODS {
        for left in [1, 4, 5, data.len() - 1] {
            let answer = ask(&server, method, &[], pieces(&data[..left], 3)).await;
            assert_eq!(answer.status.code(), Code::Internal, "{method} {left}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_cut_off_is_no_end() {
    let server = Echo::default();
    for method in METHODS {
        let mut body = pieces(&string("a"), 100);
        body.0.push_back(Err(Status::cancelled("by the client")));
        let answer = ask_layered(&server, method, &[], body).await;
        assert_eq!(answer.status.code(), Code::Cancelled, "{method}");
    }
}

#[tokio::test]
async fn a_request_that_no_one_can_decode_is_internal() {
    let server = Echo::default();
    for method in METHODS {
        for data in [framed(0, b"\xff"), framed(1, b"x"), framed(7, b"")] {
            let answer = ask(&server, method, &[], pieces(&data, 100)).await;
            assert_eq!(answer.status.code(), Code::Internal, "{method}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn compression_is_agreed_on() {
    let mut server = Echo::default();
    let gzip = [("grpc-encoding", "gzip")];
    let answer = ask(&server, "Unary", &gzip, pieces(&string("a"), 9)).await;
    assert_eq!(answer.status.code(), Code::Unimplemented);
    assert_eq!(answer.head["grpc-accept-encoding"], "identity");
    server.0.accept_compressed(CompressionEncoding::Zstd);
    server.0.send_compressed(CompressionEncoding::Gzip);
    server.0.send_compressed(CompressionEncoding::Zstd);
    let answer = ask(&server, "Both", &gzip, pieces(&string("a"), 9)).await;
    assert_eq!(answer.status.code(), Code::Unimplemented);
    assert_eq!(answer.head["grpc-accept-encoding"], "zstd,identity");
    // The order is the client's.
    for (accepted, encoding) in [
        ("zstd, gzip", Some("zstd")),
        ("snappy,gzip,identity", Some("gzip")),
        ("identity", None),
        ("snappy", None),
    ] {
        let headers = [("grpc-accept-encoding", accepted), ("grpc-encoding", "identity")];
        let answer = ask(&server, "Unary", &headers, pieces(&string("a"), 9)).await;
        let said = answer.head.get("grpc-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(said, encoding, "{accepted}");
        assert_eq!(answer.data[0], u8::from(encoding.is_some()));
    }
}

#[tokio::test]
async fn messages_of_another_codec_are_unimplemented() {
    for (content_type, code) in [
        ("application/grpc+proto", Code::Ok),
        ("application/grpc;charset=x", Code::Ok),
        ("application/grpc+proto; charset=x", Code::Ok),
        ("application/grpc+json", Code::Unimplemented),
        ("application/grpc+protobuf", Code::Unimplemented),
    ] {
        for method in METHODS {
            let headers = [("content-type", content_type)];
            let body = pieces(&string("a"), 9);
            let answer = ask(&Echo::default(), method, &headers, body).await;
            assert_eq!(answer.status.code(), code, "{method}, {content_type}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn there_is_no_such_method() {
    let answer = ask(&Echo::default(), "What", &[], pieces(&string("a"), 9)).await;
    assert_eq!(answer.status.code(), Code::Unimplemented);
    assert!(answer.status.message().contains("/test.Echo/What"), "{answer:?}");
}

#[tokio::test]
async fn trailers_of_a_request_are_metadata() {
    let body = with_trailers(pieces(&string("a"), 9), &[("x-late", "yes")]);
    assert_eq!(ask(&Echo::default(), "Unary", &[], body).await.status.code(), Code::Ok);
}

/// Returns the outcome of a unary call that gets this response, and that of a stream.
async fn outcomes(
    headers: &[(&'static str, &'static str)],
    body: impl Fn() -> Frames,
) -> (Result<String, Status>, Result<Vec<String>, Status>) {
    let request = || Request::new("request".to_owned());
    let unary = client_of(headers, body()).unary(UNARY, request()).await;
    for slowly in [false, true] {
        for direct in over_a_connection(headers, body(), slowly).await {
            assert_same(direct, &unary);
        }
    }
    let unary = unary.map(tonic::Response::into_inner);
    let streamed = async {
        let mut client = client_of(headers, body());
        let response = client.server_streaming::<_, String>(UNARY, request()).await?;
        let mut messages = response.into_inner();
        let mut all = Vec::new();
        loop {
            match messages.message().await {
                Ok(Some(message)) => all.push(message),
                Ok(None) => return Ok(all),
                Err(status) => {
                    assert!(messages.message().await.unwrap().is_none(), "an error is the end");
                    return Err(status);
                }
            }
        }
    };
    (unary, streamed.await)
}

/// Checks that a call over a connection of ours has the same outcome as one through an HTTP client.
#[track_caller]
fn assert_same(
    direct: Result<tonic::Response<String>, Status>,
    layered: &Result<tonic::Response<String>, Status>,
) {
    let fields = |metadata: &MetadataMap| {
        let mut headers = metadata.clone().into_headers();
        // The other client's responses do not have it.
        headers.remove("content-type");
        headers
    };
    match (direct, layered) {
        (Ok(direct), Ok(layered)) => {
            assert_eq!(direct.get_ref(), layered.get_ref());
            assert_eq!(fields(direct.metadata()), fields(layered.metadata()));
        }
        (Err(direct), Err(layered)) => {
            assert_eq!(direct.code(), layered.code());
            assert_eq!(direct.message(), layered.message());
            assert_eq!(fields(direct.metadata()), fields(layered.metadata()));
        }
        (direct, layered) => panic!("{direct:?} and {layered:?}"),
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Code {
    outcome.expect_err("a failure").code()
}

const OK: [(&str, &str); 1] = [("grpc-status", "0")];

#[tokio::test]
async fn a_response_is_taken() {
    for size in [1, 6, 100] {
        let body = || with_trailers(pieces(&string("word"), size), &OK);
        let (unary, streamed) = outcomes(&[], body).await;
        assert_eq!(unary.unwrap(), "word");
        assert_eq!(streamed.unwrap(), ["word"]);
    }
}

#[tokio::test]
async fn another_number_of_responses_than_one_is_unimplemented() {
    let two = [string("a"), string("b")].concat();
    let (unary, streamed) = outcomes(&[], || with_trailers(pieces(&two, 100), &OK)).await;
    assert_eq!(code(unary), Code::Unimplemented);
    assert_eq!(streamed.unwrap(), ["a", "b"]);
    let (unary, streamed) = outcomes(&[], || with_trailers(pieces(&[], 1), &OK)).await;
    assert_eq!(code(unary), Code::Unimplemented);
    assert_eq!(streamed.unwrap(), [""; 0]);
    // Trailers-Only.
    let (unary, streamed) = outcomes(&OK, || pieces(&[], 1)).await;
    assert_eq!(code(unary), Code::Unimplemented);
    assert_eq!(streamed.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_status_counts_where_it_belongs() {
    let failed = [("grpc-status", "5"), ("grpc-message", "none%20here")];
    // Trailers-Only.
    let (unary, streamed) = outcomes(&failed, || pieces(&[], 1)).await;
    let status = unary.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "none here"));
    assert_eq!(code(streamed), Code::NotFound);
    // The status is in trailers, after one message or none.
    for data in [Vec::new(), string("word")] {
        let body = || with_trailers(pieces(&data, 100), &failed);
        let (unary, streamed) = outcomes(&[], body).await;
        assert_eq!(code(unary), Code::NotFound);
        assert_eq!(code(streamed), Code::NotFound);
        // Then the status of the head does not count.
        let (unary, streamed) = outcomes(&OK, body).await;
        assert_eq!(code(unary), Code::NotFound);
        assert_eq!(code(streamed), Code::NotFound);
    }
    let body = || with_trailers(pieces(&string("word"), 100), &OK);
    let (unary, streamed) = outcomes(&failed, body).await;
    assert_eq!(unary.unwrap(), "word");
    assert_eq!(streamed.unwrap(), ["word"]);
}

#[tokio::test]
async fn a_response_without_a_status_is_no_success() {
    for data in [Vec::new(), string("word")] {
        let (unary, streamed) = outcomes(&[], || pieces(&data, 100)).await;
        assert_eq!(code(unary), Code::Unknown);
        assert_eq!(code(streamed), Code::Unknown);
    }
}

#[tokio::test]
async fn a_response_without_a_status_that_is_cut_off_is_internal() {
    let data = [string("word"), string("word")[..7].to_vec()].concat();
    // The unary call gets the half of its only message.
    let (unary, _) = outcomes(&[], || pieces(&data[9..], 100)).await;
    assert_eq!(code(unary), Code::Internal);
    let (_, streamed) = outcomes(&[], || pieces(&data, 100)).await;
    assert_eq!(code(streamed), Code::Internal);
}

#[tokio::test]
async fn a_response_that_no_one_can_decode_is_internal() {
    for data in [framed(0, b"\xff"), framed(1, b"x"), framed(7, b""), string("word")[..5].to_vec()]
    {
        let (unary, streamed) = outcomes(&[], || with_trailers(pieces(&data, 100), &OK)).await;
        assert_eq!(code(unary), Code::Internal, "{data:?}");
        assert_eq!(code(streamed), Code::Internal, "{data:?}");
    }
    // It is compressed in a way that was never accepted.
    let snappy = [("grpc-encoding", "snappy")];
    let body = || with_trailers(pieces(&framed(1, b"x"), 100), &OK);
    let (unary, streamed) = outcomes(&snappy, body).await;
    assert_eq!(code(unary), Code::Internal);
    assert_eq!(code(streamed), Code::Internal);
}

#[tokio::test]
async fn a_failure_has_the_metadata_of_head_and_trailers() {
    let failed = [("grpc-status", "5"), ("x-late", "trailers")];
    let body = || with_trailers(pieces(&[], 1), &failed);
    let (unary, _) = outcomes(&[("x-early", "head")], body).await;
    let status = unary.unwrap_err();
    assert_eq!(status.metadata().get("x-early").unwrap(), "head");
    assert_eq!(status.metadata().get("x-late").unwrap(), "trailers");
}
