// Before the first paint, so that nothing flashes: the theme that somebody has chosen, and the language. Not a module, for modules wait.
(() => {
  const script = /** @type {HTMLScriptElement | null} */ (document.currentScript);
  /** @param {string} key */
  const kept = (key) => {
    try {
      return JSON.parse(localStorage.getItem(key) ?? 'null');
    } catch {
      // Storage is blocked: as the device says.
      return null;
    }
  };
  const theme = kept('seckill.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;

  // As text.js decides.
  const known = navigator.languages.map((tag) => /^(en|zh)\b/i.exec(tag)?.[1]?.toLowerCase()).find(Boolean);
  const chosen = kept('seckill.language');
  const language = chosen === 'en' || chosen === 'zh' ? chosen : (known ?? 'en');
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  const texts = script?.dataset.texts;
  if (!script || !texts) return;
  const link = document.createElement('link');
  link.rel = 'modulepreload';
  link.href = new URL(texts.replace('*', language), script.src).href;
  document.head.append(link);
})();
