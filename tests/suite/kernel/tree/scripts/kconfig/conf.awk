# First a .config, then with stage=kconfig the Kconfig files. Writes the .config that comes of
# both, or for savedefconfig what of it is not the default.
stage == "" && /^CONFIG_/ { at = index($0, "="); given[substr($0, 8, at - 8)] = substr($0, at + 1); next }
stage == "" && /^# CONFIG_.* is not set$/ { given[substr($2, 8)] = "n"; next }
stage == "" { next }
$1 == "config" { name[++count] = $2; next }
$1 == "bool" || $1 == "tristate" || $1 == "int" || $1 == "string" { type[count] = $1; next }
$1 == "def_bool" { type[count] = "bool"; fixed[count] = $2; next }
$1 == "depends" { sub(/^[ \t]*depends on /, ""); needs[count] = $0; next }
$1 == "default" { sub(/^[ \t]*default /, ""); default_[count] = $0; next }
function met(index_,   terms, total, i) {
	total = split(needs[index_], terms, / && /)
	for (i = 1; i <= total; i++) if (value[terms[i]] != "y") return 0
	return 1
}
function settle(i,   n) {
	n = name[i]
	if (i in fixed) return fixed[i]
	if (!met(i)) return ""
	if (n in given) {
		if (given[n] == "m" && (type[i] == "bool" || value["MODULES"] != "y")) return "y"
		return given[n]
	}
	if ((type[i] == "bool" || type[i] == "tristate") && target == "allnoconfig") return "n"
	if (i in default_) return default_[i]
	return "n"
}
END {
	if (target != "savedefconfig") print "#\n# Linux/small Kernel Configuration\n#"
	for (i = 1; i <= count; i++) {
		v = value[name[i]] = settle(i)
		usual = (i in default_) ? default_[i] : "n"
		if (target == "savedefconfig" && (v == usual || i in fixed)) continue
		if (v == "") continue
		if (v == "n") print "# CONFIG_" name[i] " is not set"
		else print "CONFIG_" name[i] "=" v
	}
}
