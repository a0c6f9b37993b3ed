//! Jobs whose names, labels and logs were made to harm who looks at them.

use serde_json::json;

use crate::Story;

const SCRIPT: &str = "<script>alert('name')</script>";
const IMAGE: &str = "\"><img src=x onerror=alert('label')>";
const REVERSED: &str = "\u{202e}gnp.exe";

/// Whether anything of what was sent has become an element, or has run.
const INJECTED: &str = "document.querySelector('main script, main img, main iframe, main object, main [onerror], main [onload], \
     main style, main [style], a[href^=\"javascript:\"], a[href*=\"evil\"]') || window.harmed";

#[test]
fn nothing_of_a_jobs_names_labels_or_log_runs_or_becomes_markup() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let log = [
        "<script>window.harmed = 1; alert(1)</script>",
        "\"><img src=x onerror=\"window.harmed = 1; alert(2)\">",
        "<svg onload=alert(3)><style>*{display:none}</style>",
        "javascript:alert(4) https://evil.example/",
        "\u{1b}]8;;javascript:alert(5)\u{7}click\u{1b}]8;;\u{7} \u{1b}]0;title\u{1b}\\ \u{1b}[31mred\u{1b}[999m \u{1b}Pq\u{1b}\\",
        "\u{202e}reversed\u{2066} \u{200b}zero\u{feff} nul:\0:",
        "{{7*7}} ${alert(6)} &lt;b&gt; &amp; </span></div></main><h1>owned</h1>",
    ];
    let encoded = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(log.join("\n"))
    };
    let run = format!("echo {encoded} | base64 -d; echo; head -c 200000 /dev/zero | tr '\\0' 'w'; echo; exit 7");
    let job = json!({
        "steps": [{"name": SCRIPT, "run": run}, {"name": "second", "run": "true"}],
        "labels": {"team": IMAGE, "<b>bold</b>": "<i>", "evil": "javascript:alert(7)", "turned": REVERSED},
        "env": {"X": "</pre><script>alert(8)</script>"},
    });
    let id = story.dev.submit(&job);
    story.dev.until(&id, "failed");
    story.open("/");
    assert_eq!(browser.text("td.job > a"), SCRIPT);
    assert!(
        browser.text("ul[aria-label=Labels]").contains("team=\"><img src=x onerror=alert"),
        "{}",
        browser.text("ul[aria-label=Labels]")
    );
    assert!(browser.text("ul[aria-label=Labels]").contains("turned=⟨U+202E⟩gnp.exe"));
    let injected = INJECTED.replace(", a[href*=\"evil\"]", "");
    assert!(!browser.holds(&injected), "{}", browser.run("return document.querySelector('main').outerHTML"));
    story.open_job(&id);
    browser.until("the log is there", "document.querySelectorAll('.line').length > 8");
    assert_eq!(browser.text("h1"), SCRIPT);
    assert_eq!(browser.title(), format!("{SCRIPT} · Windlass"));
    browser.click("#to-start");
    browser.until("its beginning is there", "document.getElementById('L1')");
    for (n, line) in log.iter().enumerate().filter(|(n, _)| !matches!(n, 4 | 5)) {
        let shown = browser.run(&format!("return document.querySelector('#L{} .text').textContent", n + 1));
        assert_eq!(shown, *line);
    }
    let shown = |n: u32| browser.run(&format!("return document.querySelector('#L{n} .text').textContent"));
    assert_eq!(shown(5), "click  red ", "no sequence is left, and no link");
    assert_eq!(shown(6), "⟨U+202E⟩reversed⟨U+2066⟩ ⟨U+200B⟩zero⟨U+FEFF⟩ nul:⟨U+0000⟩:");
    assert!(browser.holds("document.querySelector('#L8 .more')"), "a very long line is cut");
    browser.click("#L8 .more");
    assert!(
        browser.holds("document.querySelector('#L8 .text').textContent.length > 10000"),
        "and shown whole when asked for"
    );
    assert_eq!(browser.run("return document.querySelectorAll('h1').length"), 1);
    browser.run("document.querySelectorAll('details').forEach((one) => (one.open = true))");
    assert!(browser.text("#spec pre").contains("</pre><script>alert(8)</script>"));
    assert!(
        !browser.holds(&injected),
        "{}",
        browser.run("return document.querySelector('main').outerHTML.slice(0, 5000)")
    );
    assert!(browser.holds("document.documentElement.scrollWidth <= innerWidth"), "nothing makes the page wider");
    story.quiet();
}

#[test]
fn the_policy_lets_nothing_but_our_own_files_run() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let id = story.dev.submit(&json!({"steps": [{"run": "true"}]}));
    for path in ["/", "/workers", "/sign-in", &format!("/jobs/{id}"), "/jobs/none"] {
        let answer = story.dev.client.get(path);
        let policy = answer.header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|has| has == rule), "{path}: {rule}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(!answer.text.contains("style="), "{path}");
    }
    story.open(&format!("/jobs/{id}"));
    for harm in [
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.harmed = 1\">')",
        "const made = document.createElement('script'); made.src = 'data:text/javascript,window.harmed=1'; document.body.append(made)",
        "const made = document.createElement('script'); made.append('window.harmed = 1'); document.body.append(made)",
        "document.body.setAttribute('onclick', 'window.harmed = 1'); document.body.click()",
        "const made = document.createElement('a'); made.href = 'javascript:window.harmed = 1'; document.body.append(made); made.click()",
        "const made = document.createElement('iframe'); made.srcdoc = '<script>parent.harmed = 1</script>'; document.body.append(made)",
    ] {
        browser.run(&format!("try {{ {harm} }} catch (refused) {{}}"));
    }
    assert!(!browser.holds("window.harmed"), "what gets in all the same doesn't run");
    assert!(!browser.complaints().is_empty(), "the browser tells of it");
}
