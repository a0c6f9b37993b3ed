//! The text of a stream of server-sent events, line by line.

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// The number by which a broken stream is resumed.
    pub id: Option<u64>,
    /// What it is; empty for an ordinary one.
    pub event: String,
    pub data: String,
}

/// Puts frames together from lines.
#[derive(Debug, Default)]
pub struct Frames {
    frame: Frame,
    /// Whether the frame has any data.
    filled: bool,
}

impl Frames {
    /// Takes the next line, without its end; the empty one completes a frame. Comments and fields that mean nothing here
    /// are skipped, and a frame without data is none.
    pub fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return std::mem::take(&mut self.filled).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.frame.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                if std::mem::replace(&mut self.filled, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Frames};

    fn frames(text: &str) -> Vec<Frame> {
        let mut frames = Frames::default();
        text.lines().filter_map(|line| frames.line(line)).collect()
    }

    #[test]
    fn a_frame_has_a_number_a_kind_and_data() {
        let text = "id: 7\ndata: {\"n\":7}\n\nevent: end\ndata: {}\n\n";
        let first = Frame { id: Some(7), event: String::new(), data: "{\"n\":7}".into() };
        let end = Frame { id: None, event: "end".into(), data: "{}".into() };
        assert_eq!(frames(text), [first, end]);
    }

    #[test]
    fn comments_keep_alive_and_are_skipped() {
        assert_eq!(frames(": still here\n\nretry: 1000\n\nid: 1\n\n"), []);
    }

    #[test]
    fn data_of_several_lines_and_without_a_space_is_put_together() {
        let frame = Frame { id: None, event: String::new(), data: "a\n b\n".into() };
        assert_eq!(frames("data:a\ndata:  b\ndata\n\n"), [frame]);
    }

    #[test]
    fn a_frame_that_is_cut_off_is_none() {
        assert_eq!(frames("id: 3\ndata: half"), []);
    }
}
