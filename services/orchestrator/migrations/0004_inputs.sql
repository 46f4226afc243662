-- What a person says to a running session comes as a signal with content.
alter table signal add column content text not null default '';
alter table signal add column approved boolean not null default false;

drop function run_signals(text, text);
create function run_signals(p_tenant text, p_session text)
returns table (id text, kind text, sender text, target text, content text, approved boolean) language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select s.id, s.kind, s.sender, s.target, s.content, s.approved from signal s
    where s.session_id = p_session order by s.created_at, s.id;
end $$;
