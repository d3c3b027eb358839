//! From a source's tree to the root file system: what packages, files, services and `run:` steps do.

use coop_image::tree::{Tree, TreeError};
use coop_runtime::event::Event;

use super::{BuildError, task};
use crate::guest::{self, GuestContext, Step};
use crate::kernel::{KernelFiles, modules};
use crate::recipe::{Recipe, Services};
use crate::rootfs;
use crate::source::SourceTree;

pub(super) fn needs_guest(recipe: &Recipe, source: &SourceTree) -> bool {
    let Services { enable, disable } = &recipe.rootfs.services;
    let has_services = !enable.is_empty() || !disable.is_empty();
    source.configure.is_some() || has_services || !recipe.rootfs.run.is_empty()
}

/// Takes the source's tree through the guest and the recipe's changes to what the image holds.
pub(super) fn finish_root(
    recipe: &Recipe,
    source: SourceTree,
    modules_of: Option<&KernelFiles>,
    locked: bool,
    context: &GuestContext<'_>,
) -> Result<Tree, BuildError> {
    let epoch = source.epoch;
    let observer = &*context.observer;
    let mut tree = source.tree;
    if let Some(script) = source.configure {
        let step = Step::new("configuring the packages", script.into_bytes());
        tree = task(observer, "configure packages", || {
            Ok(guest::run(tree, &[step], context)?)
        })?;
    }
    rootfs::customise(&mut tree, &recipe.rootfs, epoch)?;
    if let Some(kernel) = modules_of {
        // Before the steps, so that these may load modules, and take away what they do not want.
        install_modules(&mut tree, kernel, context)?;
    }
    let steps = steps(&tree, recipe, locked)?;
    if !steps.is_empty() {
        tree = task(observer, "run steps", || {
            Ok(guest::run(tree, &steps, context)?)
        })?;
    }
    rootfs::normalise(&mut tree, epoch)?;
    Ok(tree)
}

fn install_modules(
    tree: &mut Tree,
    kernel: &KernelFiles,
    context: &GuestContext<'_>,
) -> Result<(), TreeError> {
    let installed = modules::install(tree, kernel, context.epoch)?;
    if !installed.others.is_empty() {
        let message = format!(
            "the root file system also has modules of kernels that this appliance does not boot: {}",
            installed.others.join(", ")
        );
        context
            .observer
            .event(&Event::Warning { message: &message });
    }
    Ok(())
}

/// The recipe's services and `run:` steps as programs for the guest.
fn steps(tree: &Tree, recipe: &Recipe, locked: bool) -> Result<Vec<Step>, BuildError> {
    let mut steps = Vec::new();
    let Services { enable, disable } = &recipe.rootfs.services;
    if !enable.is_empty() || !disable.is_empty() {
        if tree.resolve(b"/usr/bin/systemctl").is_err() {
            return Err(BuildError::NoSystemd);
        }
        let script = services_script(enable, disable).into_bytes();
        steps.push(Step::new("services", script));
    }
    for step in &recipe.rootfs.run {
        steps.push(Step::of_recipe(step, locked)?);
    }
    Ok(steps)
}

/// systemctl works on unit files alone where SYSTEMD_OFFLINE says that no systemd runs.
fn services_script(enable: &[String], disable: &[String]) -> String {
    let mut script = "#!/bin/sh\nset -e\nexport SYSTEMD_OFFLINE=1\n".to_owned();
    for (verb, units) in [("enable", enable), ("disable", disable)] {
        for unit in units {
            script.push_str(&format!("systemctl {verb} -- {}\n", quote(unit)));
        }
    }
    script
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_no_shell() {
        let script = services_script(&["a b".to_owned()], &["x'; rm -rf /".to_owned()]);
        assert_eq!(
            script,
            "#!/bin/sh\nset -e\nexport SYSTEMD_OFFLINE=1\n\
             systemctl enable -- 'a b'\nsystemctl disable -- 'x'\\''; rm -rf /'\n"
        );
    }
}
