//! The four kinds of call in one service.

use std::sync::{Arc, Mutex};

use samehost::Server;
use samehost_tonic_examples::routeguide::route_guide_client::RouteGuideClient;
use samehost_tonic_examples::routeguide::route_guide_server::{RouteGuide, RouteGuideServer};
use samehost_tonic_examples::routeguide::{Feature, Point, Rectangle, RouteNote, RouteSummary};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{Responses, connected};

/// Knows a feature at every point of the diagonal.
#[derive(Default)]
struct Guide {
    notes: Arc<Mutex<Vec<RouteNote>>>,
}

fn feature(location: Point) -> Option<Feature> {
    let on_diagonal = location.latitude == location.longitude;
    on_diagonal.then(|| Feature {
        name: format!("diagonal {}", location.latitude),
        location: Some(location),
    })
}

#[tonic::async_trait]
impl RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Response<Feature>, Status> {
        let feature = feature(request.into_inner());
        feature.map(Response::new).ok_or_else(|| Status::not_found("nothing is there"))
    }

    type ListFeaturesStream = Responses<Feature>;

    async fn list_features(
        &self,
        request: Request<Rectangle>,
    ) -> Result<Response<Self::ListFeaturesStream>, Status> {
        let Rectangle { low, high } = request.into_inner();
        let (low, high) = (low.unwrap_or_default(), high.unwrap_or_default());
        let from = low.latitude.max(low.longitude);
        let to = high.latitude.min(high.longitude);
        let features =
            (from..=to).filter_map(|at| feature(Point { latitude: at, longitude: at }).map(Ok));
        Ok(Response::new(Box::pin(tokio_stream::iter(features))))
    }

    async fn record_route(
        &self,
        request: Request<Streaming<Point>>,
    ) -> Result<Response<RouteSummary>, Status> {
        let mut points = request.into_inner();
        let mut summary = RouteSummary::default();
        while let Some(point) = points.message().await? {
            summary.point_count += 1;
            summary.feature_count += i32::from(feature(point).is_some());
        }
        Ok(Response::new(summary))
    }

    type RouteChatStream = Responses<RouteNote>;

    async fn route_chat(
        &self,
        request: Request<Streaming<RouteNote>>,
    ) -> Result<Response<Self::RouteChatStream>, Status> {
        let notes = Arc::clone(&self.notes);
        // Each note is answered by those that were left at its place before.
        let earlier = request.into_inner().map(move |note| {
            let note = note?;
            let mut notes = notes.lock().unwrap();
            let count = notes.iter().filter(|other| other.location == note.location).count();
            let location = note.location;
            notes.push(note);
            Ok(RouteNote { location, message: format!("{count} before") })
        });
        Ok(Response::new(Box::pin(earlier)))
    }
}

fn at(latitude: i32, longitude: i32) -> Point {
    Point { latitude, longitude }
}

#[tokio::test]
async fn a_guide_answers_each_kind_of_call() {
    let service = RouteGuideServer::new(Guide::default());
    let mut client = RouteGuideClient::new(connected(Server::new().add_service(service)).await);
    let found = client.get_feature(at(3, 3)).await.unwrap().into_inner();
    assert_eq!(found.name, "diagonal 3");
    assert_eq!(client.get_feature(at(3, 4)).await.unwrap_err().code(), Code::NotFound);

    let rectangle = Rectangle { low: Some(at(2, 0)), high: Some(at(9, 5)) };
    let listed = client.list_features(rectangle).await.unwrap().into_inner();
    let listed: Vec<_> = listed.collect::<Result<_, _>>().await.unwrap();
    assert_eq!(listed.len(), 4);

    let route = (0..10).map(|step| at(step, step / 2 * 2));
    let summary = client.record_route(tokio_stream::iter(route)).await.unwrap().into_inner();
    assert_eq!((summary.point_count, summary.feature_count), (10, 5));

    let notes = (0..4)
        .map(|number| RouteNote { location: Some(at(number % 2, 0)), message: number.to_string() });
    let chat = client.route_chat(tokio_stream::iter(notes)).await.unwrap().into_inner();
    let chat: Vec<_> = chat.collect::<Result<_, _>>().await.unwrap();
    let said: Vec<_> = chat.iter().map(|note| &*note.message).collect();
    assert_eq!(said, ["0 before", "0 before", "1 before", "1 before"]);
}
