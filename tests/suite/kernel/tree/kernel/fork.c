int fork_one(void)
{
	return 0;
}
