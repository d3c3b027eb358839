#define INFO(name, text) \
	static const char name[] __attribute__((section(".modinfo"), used, aligned(1))) = text

INFO(license, "license=GPL");
INFO(depends, "depends=");
INFO(name, "name=filter");
INFO(vermagic, "vermagic=7.2.0-small");
