//! A repository behind an sshd that one key opens: what the stories of deploy keys begin with. Who registers the key, and
//! when, is theirs to say; it is called `app`.

use serde_json::{Value, json};

use crate::http::{Answer, Client};
use crate::repo::Repo;
use crate::sshd::{KeyPair, Sshd};

/// The repository, its server, and the key that nobody has registered yet.
pub struct Host {
    pub sshd: Sshd,
    pub repo: Repo,
    pub key: KeyPair,
}

impl Host {
    /// A repository with one commit, which the key alone may read.
    pub fn new() -> Self {
        let (sshd, repo, key) = (Sshd::start(), Repo::new(), KeyPair::new());
        sshd.allow(&key, repo.path().parent().expect("a directory holds it"));
        Self { sshd, repo, key }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.sshd.url(self.repo.path())
    }

    /// A job that builds it and runs that script; the key is waited for as `how` says.
    pub fn job(&self, script: &str, how: &Value) -> Value {
        let mut key = json!({"name": "app"});
        for (name, value) in how.as_object().expect("an object") {
            key[name] = value.clone();
        }
        json!({"repository": {"url": self.url(), "deploy_key": key}, "steps": [{"run": script}], "grace": "0s"})
    }

    /// Asks to register the key.
    pub fn put(&self, client: &Client) -> Answer {
        put(client, &json!({"private_key": self.key.private, "known_hosts": self.sshd.known_hosts()}))
    }

    /// Registers the key.
    pub fn register(&self, client: &Client) {
        let answer = self.put(client);
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks to store the key `app` as `body` says.
pub fn put(client: &Client, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    client.send("PUT", "/api/v1/deploy-keys/app", &headers, body.to_string().as_bytes())
}
