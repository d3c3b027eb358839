//! How QEMU boots an appliance whose kernel coop itself does not run.

use coop_appliance::{Appliance, ApplianceError, Conet, Member, Protocol};

/// Memory is given in these.
const MEBIBYTE: u64 = 1 << 20;

/// The words of the command: the machine that the manifest describes, on the terminal, what it
/// writes thrown away as `coop run` does.
///
/// # Errors
/// A path in the manifest is not plain.
pub(super) fn words(appliance: &Appliance) -> Result<Vec<String>, ApplianceError> {
    let manifest = &appliance.manifest;
    let path = |member: &Member| -> Result<String, ApplianceError> {
        Ok(appliance.path(member)?.display().to_string())
    };
    let kernel = &manifest.kernel;
    let image = kernel.boot_image.as_ref().unwrap_or(&kernel.vmlinux);
    let mut words = Words::default();
    words.flag("-snapshot");
    words.flag("-nographic");
    words.flag("-no-reboot");
    // Debian's own kernels fail on the emulated processor that QEMU takes by itself.
    // Its translator (of 7.2) lets an interrupt into the middle of cmpxchg16b, and one boot in ten
    // of Debian's 6.12 ends in a double fault of the allocator, which does without where it must.
    words.pair("-cpu", "max,-cx16".to_owned());
    words.pair(
        "-m",
        manifest.machine.memory_bytes.div_ceil(MEBIBYTE).to_string(),
    );
    words.pair("-smp", manifest.machine.cpus.to_string());
    words.pair("-kernel", path(image)?);
    if let Some(initramfs) = &kernel.initramfs {
        words.pair("-initrd", path(initramfs)?);
    }
    // A translator on a busy host may be late with the timer's ticks that the kernel counts at its
    // start, and the kernel would panic for want of them.
    let cmdline = ["console=ttyS0", "panic=-1", "no_timer_check"].map(str::to_owned);
    words.pair(
        "-append",
        [&cmdline[..], &kernel.cmdline].concat().join(" "),
    );
    words.pair("-device", "virtio-rng-pci".to_owned());
    for (index, cobd) in manifest.cobd.iter().enumerate() {
        // A comma is doubled where QEMU's options have them between themselves.
        let file = path(&cobd.image)?.replace(',', ",,");
        let readonly = if cobd.readonly { ",readonly=on" } else { "" };
        words.pair(
            "-drive",
            format!("if=none,format=raw,id=cobd{index},file={file}{readonly}"),
        );
        words.pair(
            "-device",
            format!("virtio-blk-pci,drive=cobd{index},serial=cobd{index}"),
        );
    }
    for (index, conet) in manifest.conet.iter().enumerate() {
        words.pair("-netdev", netdev(index, conet));
        words.pair("-device", format!("virtio-net-pci,netdev=conet{index}"));
    }
    Ok(words.0)
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, word: &str) {
        self.0.push(word.to_owned());
    }

    fn pair(&mut self, word: &str, value: String) {
        self.flag(word);
        self.0.push(value);
    }
}

fn netdev(index: usize, conet: &Conet) -> String {
    let Conet::User { forward, .. } = conet;
    let mut text = format!("user,id=conet{index}");
    for forward in forward {
        let protocol = match forward.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        for offset in 0..forward.count {
            let host = forward.host_port.saturating_add(offset);
            let guest = forward.guest_port.saturating_add(offset);
            text.push_str(&format!(",hostfwd={protocol}:127.0.0.1:{host}-:{guest}"));
        }
    }
    text
}

/// A line for a shell.
pub(super) fn line(words: &[String]) -> String {
    let mut line = "qemu-system-x86_64".to_owned();
    for word in words {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-+_./,:=@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_every_word_as_it_is() {
        let words = ["-append", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(
            line(&words),
            r"qemu-system-x86_64 -append 'a b' 'it'\''s' ''"
        );
    }

    #[test]
    fn a_forward_is_led_to_each_of_its_ports() {
        let forward = coop_builder::recipe::parse_forward("tcp:8000:80:2").unwrap();
        let conet = Conet::User {
            forward: vec![forward],
            allow_host: false,
        };
        assert_eq!(
            netdev(1, &conet),
            "user,id=conet1,hostfwd=tcp:127.0.0.1:8000-:80,hostfwd=tcp:127.0.0.1:8001-:81"
        );
    }
}
