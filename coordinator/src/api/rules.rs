//! Who may use which route: the one table that the guard goes by. What isn't in it is nobody's.
//!
//! ARCHITECTURE.md has the same table for people; a test tries every route with every role and holds the two together.

use actix_web::http::Method;
use shared::role::Role;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it answers anybody.
    Nothing,
    /// A token of this role, or of one that may more.
    Role(Role),
}

/// How the audit hears of a route's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited {
    /// It is no command: nothing changes.
    No,
    /// The guard notes that it was asked for, under this name; what came of it is in the job's events.
    Asked(&'static str),
    /// What it does is noted where it is done, under this name; the guard notes only those whose role doesn't allow it.
    Done(&'static str),
}

/// One route's rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub method: &'static str,
    pub path: &'static str,
    pub needs: Needs,
    pub audited: Audited,
}

const fn open(method: &'static str, path: &'static str) -> Rule {
    Rule { method, path, needs: Needs::Nothing, audited: Audited::No }
}

const fn seen(role: Role, path: &'static str) -> Rule {
    Rule { method: "GET", path, needs: Needs::Role(role), audited: Audited::No }
}

const fn asked(role: Role, method: &'static str, path: &'static str, action: &'static str) -> Rule {
    Rule { method, path, needs: Needs::Role(role), audited: Audited::Asked(action) }
}

const fn done(role: Role, method: &'static str, path: &'static str, action: &'static str) -> Rule {
    Rule { method, path, needs: Needs::Role(role), audited: Audited::Done(action) }
}

/// See the module.
pub const RULES: &[Rule] = &[
    open("GET", "/healthz"),
    open("HEAD", "/healthz"),
    open("GET", "/readyz"),
    open("HEAD", "/readyz"),
    seen(Role::Viewer, "/api/openapi.json"),
    seen(Role::Viewer, "/api/v1/jobs"),
    asked(Role::Submitter, "POST", "/api/v1/jobs", "job.submit"),
    asked(Role::Operator, "POST", "/api/v1/jobs/cancel", "job.cancel_by_filter"),
    seen(Role::Viewer, "/api/v1/jobs/{id}"),
    seen(Role::Viewer, "/api/v1/jobs/{id}/events"),
    seen(Role::Viewer, "/api/v1/jobs/{id}/logs"),
    seen(Role::Viewer, "/api/v1/jobs/{id}/explain"),
    asked(Role::Submitter, "POST", "/api/v1/jobs/{id}/cancel", "job.cancel"),
    asked(Role::Submitter, "POST", "/api/v1/jobs/{id}/retry", "job.retry"),
    seen(Role::Viewer, "/api/v1/workers"),
    done(Role::Operator, "POST", "/api/v1/workers/{id}/pause", "worker.pause"),
    done(Role::Operator, "POST", "/api/v1/workers/{id}/resume", "worker.resume"),
    done(Role::Operator, "POST", "/api/v1/workers/{id}/drain", "worker.drain"),
    done(Role::Operator, "POST", "/api/v1/workers/{id}/revoke", "worker.revoke"),
    seen(Role::Viewer, "/api/v1/deploy-keys"),
    seen(Role::Viewer, "/api/v1/deploy-keys/{name}"),
    done(Role::Admin, "PUT", "/api/v1/deploy-keys/{name}", "deploy_key.put"),
    done(Role::Admin, "DELETE", "/api/v1/deploy-keys/{name}", "deploy_key.remove"),
    done(Role::Admin, "POST", "/api/v1/vault/rekey", "vault.rekey"),
    seen(Role::Admin, "/api/v1/tokens"),
    done(Role::Admin, "POST", "/api/v1/tokens", "token.create"),
    done(Role::Admin, "POST", "/api/v1/tokens/join", "token.join"),
    done(Role::Admin, "DELETE", "/api/v1/tokens/{id}", "token.revoke"),
    seen(Role::Admin, "/api/v1/audit"),
    // Between coordinators, in the name of whoever has asked one of them.
    asked(Role::Operator, "POST", super::mass_cancel::BETWEEN_COORDINATORS, "job.cancel_by_filter"),
];

/// The rule of a route, by the pattern of its path.
pub fn rule(method: &Method, pattern: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.method == method.as_str() && rule.path == pattern)
}

/// Whether a path answers anybody, whatever the method.
pub fn is_open(path: &str) -> bool {
    RULES.iter().any(|rule| rule.needs == Needs::Nothing && rule.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_route_has_two_rules() {
        let mut known = HashSet::new();
        assert!(RULES.iter().all(|rule| known.insert((rule.method, rule.path))));
    }

    #[test]
    fn whatever_is_not_read_is_audited() {
        for rule in RULES {
            let read = matches!(rule.method, "GET" | "HEAD");
            assert_eq!(rule.audited == Audited::No, read, "{} {}", rule.method, rule.path);
        }
    }
}
