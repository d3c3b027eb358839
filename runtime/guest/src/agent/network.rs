//! The network: addresses and routes by rtnetlink (RFC 3549, linux/rtnetlink.h), and the resolver.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use coop_guest::boot::{ETC_FOLDER, Network};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::failure::{Doing, Failure};
use crate::overlay;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// How long the interface may take to appear.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(5);
/// The resolver's file on its memory file system.
const RESOLVER: &str = "/run/coop/resolv.conf";
/// Where programs look for it.
const RESOLVER_LINK: &str = "/etc/resolv.conf";

/// Brings the loopback up.
pub(crate) fn loopback() -> Result<(), Failure> {
    let socket = Rtnetlink::open()?;
    let what = || "bring the loopback up".to_owned();
    let index = interface_index("lo").doing(what)?;
    socket.up(index).doing(what)
}

/// Gives the interface its address and the guest its way out.
pub(crate) fn configure(network: &Network) -> Result<(), Failure> {
    let name = &network.interface;
    let deadline = Instant::now() + APPEAR_TIMEOUT;
    let index = loop {
        match interface_index(name) {
            Ok(index) => break index,
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)),
            Err(error) => return Err(error).doing(|| format!("find the interface {name}")),
        }
    };
    let socket = Rtnetlink::open()?;
    socket.up(index).doing(|| format!("bring {name} up"))?;
    let (address, prefix) = (network.address, network.prefix.min(32));
    socket
        .address(index, address, prefix)
        .doing(|| format!("give {name} the address {address}/{prefix}"))?;
    if let Some(gateway) = network.gateway {
        socket
            .default_route(index, gateway)
            .doing(|| format!("route through {gateway}"))?;
    }
    Ok(())
}

fn interface_index(name: &str) -> std::io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(std::io::Error::other)
}

struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    fn open() -> Result<Self, Failure> {
        rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )
        .map(Self)
        .doing(|| "open a netlink socket".into())
    }

    /// Sends one message and waits for the kernel's verdict.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        let mut message = Vec::with_capacity(16 + body.len());
        let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        rustix::net::send(&self.0, &message, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (count, _) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        let answer = answer.get(..count).unwrap_or_default();
        let (_, kind_and_rest) = answer.split_first_chunk::<4>().ok_or(Errno::PROTO)?;
        let (kind, _) = kind_and_rest.split_first_chunk::<2>().ok_or(Errno::PROTO)?;
        let code = answer.get(16..).unwrap_or_default();
        let (code, _) = code.split_first_chunk::<4>().ok_or(Errno::PROTO)?;
        if u16::from_ne_bytes(*kind) != NLMSG_ERROR {
            return Err(Errno::PROTO);
        }
        match i32::from_ne_bytes(*code) {
            0 => Ok(()),
            code => Err(Errno::from_raw_os_error(code.wrapping_neg())),
        }
    }

    fn up(&self, index: u32) -> Result<(), Errno> {
        let mut body = vec![0; 4];
        for field in [index, IFF_UP, IFF_UP] {
            body.extend_from_slice(&field.to_ne_bytes());
        }
        self.ask(RTM_NEWLINK, 0, &body)
    }

    fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Errno> {
        let mut body = vec![AF_INET, prefix, 0, RT_SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
        attribute(&mut body, IFA_LOCAL, address.octets());
        attribute(&mut body, IFA_ADDRESS, address.octets());
        attribute(&mut body, IFA_BROADCAST, broadcast.octets());
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    fn default_route(&self, index: u32, gateway: Ipv4Addr) -> Result<(), Errno> {
        let mut body = vec![AF_INET, 0, 0, 0];
        body.extend_from_slice(&[RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST]);
        body.extend_from_slice(&[0; 4]);
        attribute(&mut body, RTA_GATEWAY, gateway.octets());
        attribute(&mut body, RTA_OIF, index.to_ne_bytes());
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }
}

/// Appends an attribute of four bytes, which needs no padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend_from_slice(&8_u16.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(&value);
}

/// What must be taken back before the root goes read-only, so that a build finds its image as the
/// commands left it.
pub(crate) struct Resolver {
    /// A file that was made only to mount over it, and its folder's time before that.
    made: Option<(PathBuf, SystemTime)>,
}

impl Resolver {
    /// Shows the name servers to programs without writing into the image, where that is possible:
    /// our file is mounted over the root's, unless the root has a link into memory there.
    pub(crate) fn install(dns: &[Ipv4Addr], is_in_memory: bool) -> Result<Self, Failure> {
        let lines: String = dns.iter().map(|a| format!("nameserver {a}\n")).collect();
        if is_in_memory {
            let file = Path::new(ETC_FOLDER).join(overlay::RESOLVER);
            let what = || format!("write {}", file.display());
            // What the image kept there may be a link to a service's file.
            if file.is_symlink() {
                fs::remove_file(&file).doing(what)?;
            }
            fs::write(&file, lines).doing(what)?;
            return Ok(Self { made: None });
        }
        fs::write(RESOLVER, lines).doing(|| format!("write {RESOLVER}"))?;
        let (target, made) = mount_point()?;
        rustix::mount::mount_bind(RESOLVER, target.as_path())
            .doing(|| format!("mount over {}", target.display()))?;
        Ok(Self { made })
    }

    /// Removes the file that was made to mount over it. The mount itself must be gone.
    pub(crate) fn remove(self) -> Result<(), Failure> {
        let Some((file, folder_time)) = self.made else {
            return Ok(());
        };
        let what = || format!("remove {}", file.display());
        match fs::symlink_metadata(&file) {
            // What a command has put there meanwhile is its own.
            Ok(now) if !now.is_file() || now.len() > 0 => return Ok(()),
            // It went with its file system: the link led into memory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ => {}
        }
        fs::remove_file(&file).doing(what)?;
        let folder = file.parent().unwrap_or(Path::new("/"));
        fs::File::open(folder)
            .and_then(|folder| folder.set_modified(folder_time))
            .doing(what)
    }
}

/// The file to mount over: where the link leads, made empty where it is missing.
fn mount_point() -> Result<(PathBuf, Option<(PathBuf, SystemTime)>), Failure> {
    let link = Path::new(RESOLVER_LINK);
    let target = match fs::read_link(link) {
        Ok(target) => Path::new("/etc").join(target),
        Err(_) => link.to_owned(),
    };
    if target.exists() {
        return Ok((target, None));
    }
    let what = || format!("make {}", target.display());
    let folder = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).doing(what)?;
    let folder_time = fs::metadata(folder)
        .and_then(|metadata| metadata.modified())
        .doing(what)?;
    fs::write(&target, "").doing(what)?;
    Ok((target.clone(), Some((target, folder_time))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_with_its_file_system_need_not_be_removed() {
        let folder = std::env::temp_dir().join(format!("coop-resolver-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("resolv.conf");
        let made = |file: &Path| Resolver {
            made: Some((file.to_owned(), SystemTime::UNIX_EPOCH)),
        };
        fs::write(&file, "").unwrap();
        made(&file).remove().unwrap();
        assert!(!file.exists());
        let time = fs::metadata(&folder).and_then(|folder| folder.modified());
        assert_eq!(time.unwrap(), SystemTime::UNIX_EPOCH);
        made(&file).remove().unwrap();
        fs::write(&file, "of a command").unwrap();
        made(&file).remove().unwrap();
        assert!(file.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
