int exit_one(void)
{
	return 0;
}
