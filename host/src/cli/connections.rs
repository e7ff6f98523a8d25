//! `tidemill connections`: who is connected to a running host, closing a connection, and trying an endpoint.

use super::arguments::name;
use super::part::sending;
use super::readable::{beginning, since, text};
use super::running_host::{HostArgs, HostRefusal, asking};
use super::shape::AnswerShape;
use super::table::table;
use super::{Exit, complain};
use crate::admin::ApiRequest;
use crate::config::{PartFile, units};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that trying an endpoint may take.
const CHECK_TIMEOUT: Duration = Duration::from_mins(10);
/// What a table shows of an error.
const ERROR_CHARACTERS: usize = 80;
/// Metadata of a connection that has a column of its own, or is in another row.
const SHOWN_APART: [&str; 3] = ["__meta_connection", "__meta_peer", "__meta_source"];
/// What a host tells of its endpoints, and of one that it has tried.
const ENDPOINTS: AnswerShape = AnswerShape::Object(&[("endpoints", AnswerShape::List(&ENDPOINT))]);
const ENDPOINT: AnswerShape = AnswerShape::Object(&[
    ("pipeline", AnswerShape::Text),
    ("endpoint", AnswerShape::Text),
    ("state", AnswerShape::Text),
    ("connections", AnswerShape::List(&AnswerShape::Object(&[("id", AnswerShape::Text)]))),
]);
const REACHED: AnswerShape = AnswerShape::Object(&[("reachable", AnswerShape::Flag)]);

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ConnectionsArgs {
    #[command(subcommand)]
    command: Option<ConnectionsCommand>,
    #[command(flatten)]
    list: ConnectionList,
}

#[derive(Debug, clap::Subcommand)]
enum ConnectionsCommand {
    /// List the open endpoints and their connections.
    List(ConnectionList),
    /// Close a connection with the code 1008; one that the host dialled is dialled again.
    Close(ConnectionClose),
    /// Try whether the host can reach an endpoint.
    Check(ConnectionCheck),
}

#[derive(Debug, clap::Args)]
struct ConnectionList {
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
struct ConnectionClose {
    /// The id of the connection, as the list has it.
    #[arg(value_parser = name)]
    id: String,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
struct ConnectionCheck {
    /// The table of a source or a sink as TOML or JSON, by the file's ending.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

impl ConnectionsArgs {
    pub(super) fn execute(self) -> Exit {
        match self.command {
            None => asking(self.list.answer()),
            Some(ConnectionsCommand::List(list)) => asking(list.answer()),
            Some(ConnectionsCommand::Close(close)) => asking(close.answer()),
            Some(ConnectionsCommand::Check(check)) => check.execute(),
        }
    }
}

impl ConnectionList {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let all = self.host.ask(ApiRequest::new("GET", "/api/v1/connections"), ENDPOINTS).await?;
        Ok((self.host.shown(&all, as_tables), Exit::Success))
    }
}

impl ConnectionClose {
    async fn answer(self) -> Result<(String, Exit), HostRefusal> {
        let path = format!("/api/v1/connections/{}", utf8_percent_encode(&self.id, NON_ALPHANUMERIC));
        let answer = self.host.ask(ApiRequest::new("DELETE", path), AnswerShape::Nothing).await?;
        let closed = |_: &Value| format!("closed: {}\n", self.id);
        Ok((self.host.shown(&answer, closed), Exit::Success))
    }
}

impl ConnectionCheck {
    fn execute(self) -> Exit {
        let request = ApiRequest::new("POST", "/api/v1/connections/check").within(CHECK_TIMEOUT);
        let reached = |answer: &Value| {
            if answer["reachable"] == true {
                return ("reachable\n".to_owned(), Exit::Success);
            }
            if !self.host.json {
                let hint = answer["hint"].as_str().filter(|hint| !hint.is_empty());
                let hint = hint.map_or(String::new(), |hint| format!("\nhint: {hint}"));
                complain(format!("{}{hint}", text(&answer["error"])));
            }
            (String::new(), Exit::Failure)
        };
        sending(PartFile::load(&self.file), request, REACHED, &self.host, reached)
    }
}

fn as_tables(all: &Value) -> String {
    let endpoints = all["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    if endpoints.is_empty() {
        return "no open endpoints\n".to_owned();
    }
    let rows = endpoints.iter().map(|endpoint| {
        let error = &endpoint["last_error"];
        let error = error["message"].as_str().map_or(String::new(), |message| {
            let when = error["at"].as_u64().map_or_else(String::new, since);
            format!("{}, {when}", beginning(message, ERROR_CHARACTERS))
        });
        [
            text(&endpoint["pipeline"]),
            text(&endpoint["endpoint"]),
            text(&endpoint["state"]),
            endpoint["since"].as_u64().map_or_else(String::new, since),
            text(&endpoint["address"]),
            endpoint["connections"].as_array().map_or(0, Vec::len).to_string(),
            error,
        ]
    });
    let head = ["PIPELINE", "ENDPOINT", "STATE", "SINCE", "ADDRESS", "CONNECTIONS", "LAST ERROR"];
    let mut told = table(head, rows);
    let connections = endpoints.iter().flat_map(|endpoint| {
        let connections = endpoint["connections"].as_array().into_iter().flatten();
        connections.map(move |connection| connection_row(endpoint, connection))
    });
    let connections: Vec<_> = connections.collect();
    if !connections.is_empty() {
        let head = ["CONNECTION", "PIPELINE", "ENDPOINT", "PEER", "SINCE", "RECEIVED", "SENT", "METADATA"];
        told.push('\n');
        told.push_str(&table(head, connections));
    }
    told
}

fn connection_row(endpoint: &Value, connection: &Value) -> [String; 8] {
    let traffic = |way: &str| {
        let number = |what: &str| connection[format!("{what}_{way}")].as_u64().unwrap_or(0);
        format!("{} ({})", number("messages"), units::show_size(number("bytes")))
    };
    let metadata = connection["metadata"].as_object().into_iter().flatten();
    let others = metadata.filter(|(key, _)| !SHOWN_APART.contains(&key.as_str()));
    let others = others.map(|(key, value)| format!("{key}={}", beginning(&text(value), ERROR_CHARACTERS)));
    [
        text(&connection["id"]),
        text(&endpoint["pipeline"]),
        text(&endpoint["endpoint"]),
        text(&connection["metadata"]["__meta_peer"]),
        connection["since"].as_u64().map_or_else(String::new, since),
        traffic("received"),
        traffic("sent"),
        others.collect::<Vec<_>>().join(" "),
    ]
}
