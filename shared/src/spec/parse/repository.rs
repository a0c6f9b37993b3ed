//! The part of a specification that says what is checked out.

use super::super::grammar;
use super::super::reader::{Node, Object};
use super::super::{DeployKey, History, KEY_TRIES_MAX, KeyRetry, NAME_BYTES_MAX, OnMissing, Repository, URL_BYTES_MAX};
use super::{checked, optional, positive, positive_period};

pub(super) fn repository(node: &Node) -> Option<Repository> {
    let fields = node.nested()?;
    let url_node = fields.require("url");
    let url = url_node.as_ref().and_then(|url| checked(url, URL_BYTES_MAX, grammar::url_fault));
    let reference = optional(fields.get("ref"), |node| checked(node, NAME_BYTES_MAX, grammar::ref_fault));
    let key_node = fields.get("deploy_key");
    let has_key = key_node.is_some();
    let deploy_key = optional(key_node, deploy_key);
    if let (Some(text), Some(node)) = (&url, &url_node)
        && grammar::is_ssh(text)
        && !has_key
    {
        node.refuse("is opened by a deploy key alone: name one in deploy_key (`windlass key add` registers it)");
    }
    let history = fields.get("history").map_or(Some(History::Shallow), |node| history(&node));
    let submodules = fields.get("submodules").map_or(Some(false), |node| node.boolean());
    fields.finish();
    Some(Repository {
        url: url?,
        reference: reference.ok()?,
        deploy_key: deploy_key.ok()?,
        history: history?,
        submodules: submodules?,
    })
}

/// A deploy key's name alone, or an object with it.
fn deploy_key(node: &Node) -> Option<DeployKey> {
    if node.value.is_string() {
        return key_name(node).map(DeployKey::named);
    }
    let fields = node.nested()?;
    let name = fields.require("name").and_then(|name| key_name(&name));
    let on_missing = fields.get("on_missing").map_or(Some(OnMissing::Park), |node| on_missing(&node));
    let wait = positive(&fields, "wait", DeployKey::WAIT_DEFAULT);
    let retry = optional(fields.get("retry"), |node| key_retry(node.nested()?));
    let in_steps = fields.get("in_steps").map_or(Some(false), |node| node.boolean());
    fields.finish();
    Some(DeployKey { name: name?, on_missing: on_missing?, wait: wait?, retry: retry.ok()?, in_steps: in_steps? })
}

fn key_name(node: &Node) -> Option<String> {
    checked(node, NAME_BYTES_MAX, grammar::key_name_fault)
}

fn on_missing(node: &Node) -> Option<OnMissing> {
    match node.value.as_str() {
        Some("park") => Some(OnMissing::Park),
        Some("fail") => Some(OnMissing::Fail),
        _ => {
            node.refuse("is not one of park, fail");
            None
        }
    }
}

fn key_retry(fields: Object) -> Option<KeyRetry> {
    let default = KeyRetry::default();
    let tries = fields.get("tries").map_or(Some(default.tries), |node| node.number(1, KEY_TRIES_MAX));
    let backoff = fields.get("backoff").map_or(Some(default.backoff), |node| node.parsed());
    let (first_node, max_node) = (fields.get("first"), fields.get("max"));
    let first = first_node.as_ref().map_or(Some(default.first), positive_period);
    let max = max_node.as_ref().map_or(Some(default.max), positive_period);
    let deadline = positive(&fields, "deadline", default.deadline);
    if let (Some(first), Some(max)) = (first, max)
        && first > max
    {
        match (first_node, max_node) {
            (Some(node), _) => node.refuse(format_args!("must not be longer than max, which is {max}")),
            (None, Some(node)) => node.refuse(format_args!("must not be shorter than first, which is {first}")),
            (None, None) => {}
        }
    }
    fields.finish();
    Some(KeyRetry { tries: tries?, backoff: backoff?, first: first?, max: max?, deadline: deadline? })
}

fn history(node: &Node) -> Option<History> {
    match node.value.as_str() {
        Some("shallow") => Some(History::Shallow),
        Some("full") => Some(History::Full),
        _ => {
            node.refuse("is not one of shallow, full");
            None
        }
    }
}
