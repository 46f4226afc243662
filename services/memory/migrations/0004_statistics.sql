-- Statistics as soon as much was stored: without them the planner takes any index. Only the owner may gather them.
create function analyze_memories() returns void language sql security definer set search_path = memory as $$
  analyze memory_episode;
  analyze memory_episode_384;
  analyze memory_word;
$$;
revoke all on function analyze_memories() from public;
do $$
begin
  if exists (select from pg_roles where rolname = 'agentnet_memory') then
    grant execute on function analyze_memories() to agentnet_memory;
  end if;
end $$;
