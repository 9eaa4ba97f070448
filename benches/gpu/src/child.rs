//! Another program, run to its end within a bound.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Loading and running a peer, or compiling and running a toolkit's program, takes minutes; beyond this it hangs.
const CHILD_FOR: Duration = Duration::from_secs(900);
/// Its answer is one line, far below what a pipe holds.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What the program printed on its standard output.
///
/// # Errors
/// In words: it could not start, took too long, or failed, with the last line of what it complained of.
pub fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Complaints go to a file: they may be longer than a pipe holds.
    let mut complaints = tempfile::NamedTempFile::new().map_err(|error| format!("no temporary file: {error}"))?;
    let stderr = complaints.as_file().try_clone().map_err(|error| format!("no temporary file: {error}"))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if began.elapsed() < CHILD_FOR => std::thread::sleep(ASK_EVERY),
            _ => {
                // It may have ended meanwhile; either way it is waited for.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} took longer than {} s", CHILD_FOR.as_secs()));
            }
        }
    }
    let output = child.wait_with_output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut text = String::new();
    let _ =
        std::io::Seek::rewind(complaints.as_file_mut()).and_then(|()| std::io::Read::read_to_string(complaints.as_file_mut(), &mut text));
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Err(format!("{name} failed ({}): {last}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_and_why_it_fails() {
        assert_eq!(output(Command::new("sh").args(["-c", "echo 7"])).as_deref(), Ok("7\n"));
        let failed = output(Command::new("sh").args(["-c", "echo first >&2; echo the reason >&2; exit 3"])).unwrap_err();
        assert!(failed.contains("the reason") && !failed.contains("first"), "{failed}");
        assert!(output(&mut Command::new("no-such-program")).unwrap_err().contains("does not start"));
    }
}
