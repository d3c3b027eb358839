//! A recipe's steps and their fields.

use std::io;

use serde::Serialize;
use serde_json::Value;

use super::{Action, Field, Plan};
use crate::digest::Digest;
use crate::guest::{Network, Step};
use crate::inputs::FileDigests;
use crate::recipe::{CobdContent, FileContent, FileEntry, Owner, Recipe, Source};

/// What the recipe's names came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// The recipe.
    pub(crate) recipe: &'a Recipe,
    /// What the files are that it names.
    pub(crate) files: &'a FileDigests,
    /// What the source's tree depends on.
    pub(crate) source: &'a [(String, String)],
    /// Whether the source has packages that the guest configures.
    pub(crate) configures: bool,
    /// The indices of the archives, one line each: what a step with a network may meet.
    pub(crate) suites: &'a [String],
    /// The appliance's kernel.
    pub(crate) kernel: &'a str,
    /// The kernel of the guests that build.
    pub(crate) guest_kernel: &'a str,
    /// The kernel whose modules are installed.
    pub(crate) modules: Option<&'a str>,
    /// Services and `run:` steps.
    pub(crate) programs: &'a [Step],
}

/// Makes a recipe's plan.
///
/// # Errors
/// A file of the host that the recipe names cannot be read.
pub(crate) fn make(given: &Given<'_>) -> io::Result<Plan> {
    let recipe = given.recipe;
    let mut plan = Plan::default();
    plan.push(source_name(recipe), Action::Source, source_fields(given)?);
    let kernel = || Field::new("kernel", given.guest_kernel);
    if given.configures {
        plan.push("configure", Action::Configure, vec![kernel()]);
    }
    let customise = customise_fields(given)?;
    plan.push("files", Action::Customise, customise);
    if let Some(modules) = given.modules {
        let fields = vec![Field::new("kernel", modules)];
        plan.push("modules", Action::Modules, fields);
    }
    for (index, step) in given.programs.iter().enumerate() {
        let mut fields = vec![kernel()];
        fields.extend(step.fields().into_iter().map(Field::from));
        if step.network != Network::Off {
            // Whoever has a network meets what the archives have on that day.
            let suites = given.suites.iter().enumerate();
            fields.extend(suites.map(|(number, line)| Field::new(format!("suite {number}"), line)));
        }
        plan.push(&step.name, Action::Run(index), fields);
    }
    plan.push("image", Action::Image, image_fields(given)?);
    Ok(plan)
}

fn source_name(recipe: &Recipe) -> &'static str {
    match &recipe.rootfs.source {
        Source::Debian(_) => "packages",
        Source::Tarball(_) => "archive",
        Source::Disk(_) => "disk",
    }
}

fn source_fields(given: &Given<'_>) -> io::Result<Vec<Field>> {
    let mut fields = vec![Field::new("coop", env!("COOP_CODE"))];
    // The recipe's own words too: whatever comes to be said there counts without being told here.
    // An archive's place is not among them, as its digest is.
    if let Source::Debian(debian) = &given.recipe.rootfs.source {
        fields.extend(words("rootfs.source.debian", &json(debian)?));
    }
    fields.extend(given.source.iter().cloned().map(Field::from));
    Ok(fields)
}

fn json(part: &impl Serialize) -> io::Result<Value> {
    Ok(serde_json::to_value(part)?)
}

/// One field for each key.
fn words(path: &str, value: &Value) -> Vec<Field> {
    let Some(map) = value.as_object() else {
        return vec![Field::new(path, value.to_string())];
    };
    let mut fields: Vec<Field> = map
        .iter()
        .map(|(key, value)| Field::new(format!("{path}.{key}"), value.to_string()))
        .collect();
    fields.sort_by(|left, right| left.name.cmp(&right.name));
    fields
}

fn customise_fields(given: &Given<'_>) -> io::Result<Vec<Field>> {
    let rootfs = &given.recipe.rootfs;
    let mut fields = vec![Field::new("hostname", &rootfs.hostname)];
    for user in &rootfs.users {
        // It may have a password in it.
        let digest = Digest::of(json(user)?.to_string().as_bytes());
        fields.push(Field::new(
            format!("user {}", user.name),
            digest.to_string(),
        ));
    }
    for entry in &rootfs.files {
        fields.push(Field::new(
            format!("file {}", entry.path),
            file(entry, given.files)?,
        ));
    }
    Ok(fields)
}

fn file(entry: &FileEntry, files: &FileDigests) -> io::Result<String> {
    let digest = match &entry.content {
        FileContent::Text(text) => Digest::of(text.as_bytes()),
        FileContent::File(file) => files.digest(&file.path)?,
    };
    let owner = |owner: &Owner| match owner {
        Owner::Id(id) => id.to_string(),
        Owner::Name(name) => name.clone(),
    };
    let (mode, user, group) = (entry.mode, owner(&entry.owner), owner(&entry.group));
    Ok(format!("{mode:04o} {user}:{group} {digest}"))
}

/// What only the last step looks at. Its result is the output itself, which other digests tell of:
/// these fields are for people.
fn image_fields(given: &Given<'_>) -> io::Result<Vec<Field>> {
    let recipe = given.recipe;
    let mut fields = words("devices", &json(&recipe.devices)?);
    if let Some(readonly) = &recipe.rootfs.readonly {
        fields.extend(words("rootfs.readonly", &json(readonly)?));
    }
    fields.push(Field::new("kernel", given.kernel));
    fields.push(Field::new("name", &recipe.name));
    fields.push(Field::new("description", &recipe.description));
    fields.push(Field::new(
        "kernel.cmdline",
        recipe.kernel.cmdline.join(" "),
    ));
    fields.push(Field::new("test", json(&recipe.test)?.to_string()));
    for cobd in &recipe.devices.cobd {
        if let CobdContent::File { file, .. } = &cobd.content {
            let digest = given.files.digest(&file.path)?.to_string();
            fields.push(Field::new(format!("cobd {}", cobd.name), digest));
        }
    }
    Ok(fields)
}
